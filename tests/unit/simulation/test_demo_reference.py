"""The child process, with small programs in the place of the reference where it is to go wrong."""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from splitlearn.simulation.centralised_files import CentralisedAnswer, CentralisedRequest, RequestedSilo
from splitlearn.simulation.demo_inputs import plan_job
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.reference_process import (
    FOLDER,
    CentralisedError,
    ReferenceProcess,
    ReferenceStep,
)
from splitlearn.tasks import Example, TokenRow

ANSWER = CentralisedAnswer(losses=(1.0,), eval_loss=0.5, seconds_per_step=0.1, silos=())


@pytest.fixture
def request_file() -> CentralisedRequest:
    row = TokenRow((1, 2), (1, 2))
    silo = RequestedSilo(name="a", training=(row,), heldout=(Example((row,), 0, b"x"),))
    return CentralisedRequest(spec=plan_job(DemoOptions()), model_folder=Path("m"), silos=(silo,))


def program(source: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(source))


def run(
    asked: CentralisedRequest, folder: Path, source: str
) -> tuple[CentralisedAnswer, list[ReferenceStep]]:
    steps: list[ReferenceStep] = []
    process = ReferenceProcess(asked, work_dir=folder, on_step=steps.append, program=program(source))
    return process.run(), steps


class TestRunReference:
    def test_tells_of_steps_and_returns_the_answer(
        self, request_file: CentralisedRequest, tmp_path: Path
    ) -> None:
        source = f"""
            import json, pathlib, sys
            print("a library says hello")
            print(json.dumps({{"step": 0, "loss": 2.5, "seconds": 1}}))
            print(json.dumps({{"step": 1, "loss": None, "seconds": 1}}))
            pathlib.Path(sys.argv[2]).write_text({ANSWER.model_dump_json()!r})
        """
        answer, steps = run(request_file, tmp_path, source)
        assert answer == ANSWER
        assert steps == [ReferenceStep(0, 2.5), ReferenceStep(1, None)]

    def test_leaves_no_row_on_the_disk(self, request_file: CentralisedRequest, tmp_path: Path) -> None:
        with pytest.raises(CentralisedError):
            run(request_file, tmp_path, "raise SystemExit(3)")
        assert list(tmp_path.iterdir()) == []

    def test_names_the_reference_and_its_last_words(
        self, request_file: CentralisedRequest, tmp_path: Path
    ) -> None:
        source = 'import sys; sys.stderr.write("one\\nno memory left\\n"); sys.exit(3)'
        with pytest.raises(
            CentralisedError, match=r"centralised reference failed \(exit code 3\): no memory left"
        ):
            run(request_file, tmp_path, source)

    def test_refuses_to_go_on_without_an_answer(
        self, request_file: CentralisedRequest, tmp_path: Path
    ) -> None:
        with pytest.raises(CentralisedError, match="left no answer"):
            run(request_file, tmp_path, "pass")

    def test_clears_what_a_killed_run_left(self, request_file: CentralisedRequest, tmp_path: Path) -> None:
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / "request.json").write_text("rows")
        with pytest.raises(CentralisedError):
            run(request_file, tmp_path, "raise SystemExit(3)")
        assert list(tmp_path.iterdir()) == []


class _Sleeper:
    """A reference that tells its process id as its first step, and then sleeps."""

    SOURCE = """
        import json, os, time
        print(json.dumps({"step": os.getpid(), "loss": 1.0}), flush=True)
        time.sleep(600)
    """

    def __init__(
        self, asked: CentralisedRequest, folder: Path, *, then: Callable[["_Sleeper"], None]
    ) -> None:
        self._then = then
        self.pid = 0
        self.process = ReferenceProcess(
            asked, work_dir=folder, on_step=self._on_step, program=program(self.SOURCE)
        )

    def _on_step(self, step: ReferenceStep) -> None:
        self.pid = step.step
        self._then(self)


def _raise(_: _Sleeper) -> None:
    raise KeyboardInterrupt


def _cancel(sleeper: _Sleeper) -> None:
    sleeper.process.cancel()


class TestEnd:
    @pytest.mark.parametrize("then", [_raise, _cancel])
    def test_no_child_and_no_row_is_left(
        self, request_file: CentralisedRequest, tmp_path: Path, then: Callable[[_Sleeper], None]
    ) -> None:
        sleeper = _Sleeper(request_file, tmp_path, then=then)
        with pytest.raises(KeyboardInterrupt):
            sleeper.process.run()
        with pytest.raises(ProcessLookupError):
            os.kill(sleeper.pid, 0)
        assert list(tmp_path.iterdir()) == []

    def test_one_cancelled_beforehand_never_starts(
        self, request_file: CentralisedRequest, tmp_path: Path
    ) -> None:
        sleeper = _Sleeper(request_file, tmp_path, then=_raise)
        sleeper.process.cancel()
        with pytest.raises(KeyboardInterrupt):
            sleeper.process.run()
        assert sleeper.pid == 0
        assert list(tmp_path.iterdir()) == []
