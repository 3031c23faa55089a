"""Runs as processes, with a small program in place of the training."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from splitlearn.comparison.folder import ComparisonFolder, claim
from splitlearn.comparison.modes import parse_modes
from splitlearn.comparison.plan import Run, plan_runs
from splitlearn.comparison.run_files import RunResult
from splitlearn.comparison.runner import Failure, Outcome, Runner
from splitlearn.comparison.specification import Comparison, read_comparison
from splitlearn.errors import DataError, StorageError
from tests.unit.comparison.builders import run_result

# A lane whose runs answer at once, note that they were asked, and do what the test has written for this mode.
PROGRAM = """
import json, os, pathlib, sys, time
from splitlearn.comparison.lane import serve

def run(asked, answered):
    request = json.loads(asked.read_text())
    here = pathlib.Path({here!r})
    with (here / "asked.txt").open("a") as file:
        file.write(request["mode"] + "\\n")
    print(json.dumps({{"share": 0.5}}), flush=True)
    pathlib.Path(request["work_dir"]).mkdir(parents=True)
    told = here / (request["mode"] + ".py")
    if told.exists():
        exec(told.read_text(), {{**globals(), "here": here, "answered": answered}})
    result = json.loads((here / "result.json").read_text())
    result.update(mode=request["mode"], seed=request["job"]["seed"], fingerprint=request["fingerprint"])
    answered.write_text(json.dumps(result))
    return 0

serve(pathlib.Path(sys.argv[1]), run)
"""
MODES = ("centralised", "serial", "client-batching")


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_working: Callable[[], None] = lambda: None

    def kept(self, num_kept: int, total: int) -> None:
        self.said.append(f"kept {num_kept} of {total}")

    def finished(self, run: Run, result: RunResult, *, left: float | None) -> None:
        assert result.mode == run.mode.name
        assert left is not None
        self.said.append(f"finished {run}")

    def failed(self, failure: Failure) -> None:
        self.said.append(f"failed {failure.run}")

    def working(self, active: Sequence[tuple[Run, float]], *, left: float | None) -> None:
        assert left is None or left >= 0
        assert len(active) <= 2
        self.on_working()


class Stage:
    """A comparison whose runs do as they are told."""

    def __init__(self, comparison: Comparison, folder: Path) -> None:
        self.comparison, self.folder = comparison, folder
        self.notes = Notes()
        self.runner: Runner | None = None
        (folder / "result.json").write_text(run_result("any", 0, 1.5).model_dump_json())

    @property
    def asked(self) -> list[str]:
        path = self.folder / "asked.txt"
        return path.read_text().split() if path.exists() else []

    def tell(self, mode: str, code: str) -> None:
        (self.folder / f"{mode}.py").write_text(code)

    def run(self, *, parallel: int = 1, threads: int = 1) -> Outcome:
        modes = parse_modes(MODES, silos=self.comparison.source.silos)
        with claim(self.folder / "out") as folder:
            self.runner = Runner(
                self.comparison,
                plan_runs(self.comparison, modes, num_seeds=1, threads=threads),
                folder=folder,
                parallel=parallel,
                threads=threads,
                environment={},
                watcher=self.notes,
                program=("-c", PROGRAM.format(here=str(self.folder))),
            )
            return self.runner.run()


@pytest.fixture
def stage(spec_path: Path, tmp_path: Path) -> Stage:
    return Stage(read_comparison(spec_path), tmp_path)


class TestRunner:
    def test_returns_results_in_the_order_of_the_plan(self, stage: Stage) -> None:
        outcome = stage.run(parallel=2)
        assert [result.mode for result in outcome.results] == list(MODES)
        assert outcome.failures == ()
        assert sorted(stage.notes.said) == sorted(f"finished {mode}, seed 3" for mode in MODES)

    def test_leaves_nothing_of_the_work(self, stage: Stage) -> None:
        stage.run()
        assert not (stage.folder / "out/work").exists()
        assert {path.suffix for path in (stage.folder / "out/runs").iterdir()} == {".json", ".log"}

    def test_does_not_repeat_a_finished_run(self, stage: Stage) -> None:
        first = stage.run()
        assert stage.run() == first
        assert stage.asked == list(MODES)
        assert stage.notes.said[-1] == "kept 3 of 3"

    def test_repeats_a_run_that_depends_on_something_else_now(self, stage: Stage) -> None:
        stage.run()
        stage.run(threads=2)
        assert stage.asked == [*MODES, *MODES]

    def test_goes_on_after_a_failure_and_repeats_only_that(self, stage: Stage) -> None:
        stage.tell(
            "serial", 'print(json.dumps({"code": "training", "error": "too wild"}), flush=True); os._exit(11)'
        )
        outcome = stage.run()
        assert [result.mode for result in outcome.results] == ["centralised", "client-batching"]
        (failure,) = outcome.failures
        assert (failure.run.mode.name, failure.code, failure.message) == ("serial", "training", "too wild")
        assert failure.exit_code == 11
        stage.tell("serial", "")
        assert len(stage.run().results) == 3
        assert stage.asked == [*MODES, "serial"]

    def test_names_the_signal_and_the_log_of_a_run_that_was_killed(self, stage: Stage) -> None:
        stage.tell("serial", "import signal; os.kill(os.getpid(), signal.SIGKILL)")
        (failure,) = stage.run().failures
        assert "was ended by SIGKILL" in failure.message
        assert failure.message.endswith("serial.seed-3.log")
        assert failure.exit_code == 13

    def test_names_why_a_lane_died_and_starts_it_again(self, stage: Stage) -> None:
        once = "(here / 'serial.py').write_text(''); "
        stage.tell(
            "serial", once + "print('out of luck', flush=True); os.kill(os.getppid(), 9); time.sleep(600)"
        )
        outcome = stage.run()
        (failure,) = outcome.failures
        assert failure.message.startswith("its process was ended by SIGKILL: out of luck")
        assert [result.mode for result in outcome.results] == ["centralised", "client-batching"]

    def test_does_not_take_half_a_result(self, stage: Stage) -> None:
        stage.tell("serial", 'answered.write_text("{}"); os._exit(0)')
        (failure,) = stage.run().failures
        assert failure.code == "storage"

    def test_ends_at_once_where_the_first_run_refuses_the_data(self, stage: Stage) -> None:
        stage.tell(
            "centralised", 'print(json.dumps({"code": "data", "error": "f:1: bad"}), flush=True); os._exit(4)'
        )
        with pytest.raises(DataError, match="f:1: bad"):
            stage.run()
        assert stage.asked == ["centralised"]

    def test_ends_its_processes_when_it_is_cancelled(self, stage: Stage) -> None:
        stage.tell("serial", "(here / 'begun').touch(); time.sleep(600)")

        def cancel() -> None:
            if (stage.folder / "begun").exists():
                assert stage.runner is not None
                stage.runner.cancel()

        stage.notes.on_working = cancel
        with pytest.raises(KeyboardInterrupt):
            stage.run()
        assert stage.asked == ["centralised", "serial"]
        stage.tell("serial", "")
        stage.notes.on_working = lambda: None
        stage.run()
        assert stage.asked == ["centralised", "serial", "serial", "client-batching"]


class TestClaim:
    def test_refuses_a_folder_with_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").touch()
        with pytest.raises(StorageError, match=r"thesis\.txt"), claim(tmp_path):
            pass

    def test_refuses_a_folder_in_use(self, tmp_path: Path) -> None:
        with (
            claim(tmp_path / "out"),
            pytest.raises(StorageError, match="another comparison is using"),
            claim(tmp_path / "out"),
        ):
            pass

    def test_takes_over_what_a_killed_comparison_left(self, tmp_path: Path) -> None:
        folder = ComparisonFolder(tmp_path / "out")
        with claim(folder.path):
            pass
        folder.work_of("serial.seed-1").mkdir(parents=True)
        with claim(folder.path):
            assert not folder.work.exists()
