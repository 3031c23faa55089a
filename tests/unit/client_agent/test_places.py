import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from client_agent.places import AgentFolder, JobRunsError, UnknownJobError

ONE, TWO = "0f3c0000-0000-4000-8000-000000000001", "0f3d0000-0000-4000-8000-000000000002"


@pytest.fixture
def folder(state_dir: Path) -> AgentFolder:
    folder = AgentFolder(state_dir)
    for job in (ONE, TWO):
        folder.job(job).path.mkdir(parents=True)
    return folder


class TestFindJob:
    def test_by_the_beginning_of_its_id(self, folder: AgentFolder) -> None:
        assert folder.find_job("0f3d").job_id == TWO

    def test_refuses_what_several_begin_with(self, folder: AgentFolder) -> None:
        with pytest.raises(UnknownJobError, match="several jobs' ids begin with '0f3'"):
            folder.find_job("0f3")

    def test_refuses_what_none_begins_with(self, folder: AgentFolder) -> None:
        with pytest.raises(UnknownJobError, match="no job's id begins"):
            folder.find_job("9")

    def test_does_not_leave_the_folder(self, folder: AgentFolder) -> None:
        with pytest.raises(UnknownJobError):
            folder.find_job("../jobs")


class TestJob:
    @pytest.mark.parametrize("word", ["..", "", "0f3c0000", ONE + "/.."])
    def test_takes_ids_only(self, folder: AgentFolder, word: str) -> None:
        with pytest.raises(AssertionError):
            folder.job(word)


class TestHeld:
    def test_keeps_others_out(self, folder: AgentFolder) -> None:
        with folder.job(ONE).held(), pytest.raises(JobRunsError), folder.job(ONE).held():
            pass

    def test_waits_for_one_that_is_about_to_let_go(self, folder: AgentFolder) -> None:
        with ExitStack() as other:
            other.enter_context(folder.job(ONE).held())
            leaving = threading.Timer(0.3, other.close)
            leaving.start()
            with folder.job(ONE).held(wait_seconds=30):
                leaving.join()

    def test_lets_go_at_the_end(self, folder: AgentFolder) -> None:
        with folder.job(ONE).held():
            pass
        with folder.job(ONE).held():
            assert folder.job(ONE).path.is_dir()
