from pathlib import Path

import pytest

from splitlearn.errors import SpecError, StorageError
from splitlearn.simulation.demo_inputs import plan_job
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.json_files import write_json
from splitlearn.simulation.outcome import DemoOutcome, Fault
from splitlearn.simulation.run_folder import LOCK, Job, RunFolder, claim


def job(*, rounds: int = 2, threads: int = 1, rows: str = "aa") -> Job:
    spec = plan_job(DemoOptions(rounds=rounds))
    return Job(spec=spec, threads=threads, in_process=False, model="m", data={"harbour": rows})


def begun(path: Path) -> None:
    with claim(path) as folder:
        folder.begin(job())
        (path / "silos").mkdir()
        (path / "silos" / "weights").write_text("precious")


class TestClaim:
    def test_refuses_a_second_run_until_the_first_has_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        with claim(path) as folder:
            folder.begin(job())
            with pytest.raises(StorageError, match="another run is using"), claim(path):
                pass
        with claim(path):
            pass

    def test_takes_a_folder_away_that_nothing_came_into(self, tmp_path: Path) -> None:
        with claim(tmp_path / "run"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_takes_away_what_a_refused_call_made(self, tmp_path: Path) -> None:
        with claim(tmp_path / "runs" / "demo") as folder:
            (folder.models / "tiny").mkdir(parents=True)
        assert list(tmp_path.iterdir()) == []

    def test_leaves_what_was_there_before(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        begun(path)
        (path / "models" / "tiny").mkdir(parents=True)
        before = sorted(path.rglob("*"))
        with pytest.raises(SpecError), claim(path) as folder:
            folder.resume(job(rounds=3))
        assert sorted(path.rglob("*")) == before

    def test_leaves_a_folder_that_the_user_made(self, tmp_path: Path) -> None:
        with claim(tmp_path):
            pass
        assert tmp_path.is_dir()
        assert list(tmp_path.iterdir()) == []

    def test_refuses_a_folder_of_somebody_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(StorageError, match=r"no run of Trunkline \(thesis.txt\)"), claim(tmp_path):
            pass
        assert (tmp_path / "thesis.txt").read_text() == "mine"

    def test_takes_a_folder_with_only_the_result_of_a_refused_call(self, tmp_path: Path) -> None:
        refused = DemoOutcome("failed", DemoOptions(out=tmp_path), fault=Fault("spec", "no", 2))
        write_json(tmp_path / "numbers.json", refused.to_json())
        with claim(tmp_path) as folder:
            assert folder.begin(job()) is None

    def test_refuses_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        with pytest.raises(StorageError, match="cannot be the run's folder"), claim(tmp_path / "run"):
            pass


class TestBegin:
    def test_moves_what_an_earlier_run_left(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        begun(path)
        with claim(path) as folder:
            assert folder.begin(job(rounds=3)) == path / "earlier" / "1"
            assert not (path / "silos").exists()
        assert (path / "earlier" / "1" / "silos" / "weights").read_text() == "precious"

    def test_never_moves_onto_an_earlier_one(self, tmp_path: Path) -> None:
        begun(tmp_path / "run")
        begun(tmp_path / "run")
        with claim(tmp_path / "run") as folder:
            assert folder.begin(job()) == tmp_path / "run" / "earlier" / "2"

    def test_says_nothing_of_an_empty_folder(self, tmp_path: Path) -> None:
        with claim(tmp_path / "run") as folder:
            assert folder.begin(job()) is None


class TestResume:
    def test_goes_on_with_the_same_job(self, tmp_path: Path) -> None:
        begun(tmp_path / "run")
        with claim(tmp_path / "run") as folder:
            folder.resume(job())
        assert (tmp_path / "run" / "silos" / "weights").read_text() == "precious"

    @pytest.mark.parametrize(
        ("other", "difference"),
        [
            (job(rounds=3), "rounds was 2, is 3"),
            (job(threads=2), "threads was 1, is 2"),
            (job(rows="bb"), "data.harbour has changed"),
        ],
    )
    def test_names_what_differs(self, tmp_path: Path, other: Job, difference: str) -> None:
        begun(tmp_path / "run")
        with claim(tmp_path / "run") as folder, pytest.raises(SpecError, match=difference):
            folder.resume(other)

    def test_refuses_where_there_is_no_run(self, tmp_path: Path) -> None:
        with claim(tmp_path / "run") as folder, pytest.raises(StorageError, match="no run to resume"):
            folder.resume(job())

    def test_refuses_a_torn_job(self, tmp_path: Path) -> None:
        begun(tmp_path / "run")
        (tmp_path / "run" / "job.json").write_text('{"spec": ')
        with (
            claim(tmp_path / "run") as folder,
            pytest.raises(StorageError, match="cannot be read as the job"),
        ):
            folder.resume(job())


class TestLayout:
    def test_models_stay_where_adapters_look_for_them(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        begun(path)
        RunFolder(path).models.mkdir()
        with claim(path) as folder:
            folder.begin(job())
        assert RunFolder(path).models.is_dir()
        assert (path / LOCK).exists()
