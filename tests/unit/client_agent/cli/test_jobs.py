import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client_agent.cli.main import app
from client_agent.job_record import JobRecord
from client_agent.places import AgentFolder, JobFolder, JobRunsError, UnknownJobError
from splitlearn.errors import StorageError

JOB = "0f3c0000-0000-4000-8000-000000000001"


def agent(state_dir: Path, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"TRUNKLINE_AGENT_STATE_DIR": str(state_dir)})


@pytest.fixture
def folder(state_dir: Path) -> JobFolder:
    folder = AgentFolder(state_dir).job(JOB)
    folder.result.mkdir(parents=True)
    (folder.result / "adapter_config.json").write_text("{}")
    folder.log.write_text("one\ntwo\n")
    record = JobRecord(
        id=JOB,
        name="triage",
        dataset="notes",
        state="completed",
        phase="finished",
        updated_at=datetime.now(tz=UTC),
    )
    record.write(folder.record)
    return folder


@pytest.mark.usefixtures("folder")
class TestJobs:
    def test_logs_print_the_jobs_log(self, state_dir: Path) -> None:
        assert agent(state_dir, "logs", "0f3c").stdout == "one\ntwo\n"

    def test_logs_of_an_unknown_job_are_refused(self, state_dir: Path) -> None:
        assert isinstance(agent(state_dir, "logs", "9").exception, UnknownJobError)

    def test_logs_of_an_agent_that_never_ran_are_refused(self, state_dir: Path) -> None:
        assert isinstance(agent(state_dir, "logs").exception, StorageError)

    def test_export_copies_the_result(self, state_dir: Path, tmp_path: Path) -> None:
        shown = agent(state_dir, "export", "0f3c", str(tmp_path / "out"), "--json")
        assert json.loads(shown.stdout) == {"job": JOB, "result": str(tmp_path / "out")}
        assert (tmp_path / "out/adapter_config.json").is_file()

    def test_forget_deletes_everything_of_the_job(self, state_dir: Path, folder: JobFolder) -> None:
        assert agent(state_dir, "forget", "0f3c").exit_code == 0
        assert not folder.path.exists()

    def test_forget_is_refused_while_the_job_runs(self, state_dir: Path, folder: JobFolder) -> None:
        with folder.held():
            result = agent(state_dir, "forget", "0f3c")
        assert isinstance(result.exception, JobRunsError)
        assert folder.result.is_dir()

    def test_status_lists_the_job_before_enrolment_too(self, state_dir: Path) -> None:
        content = json.loads(agent(state_dir, "status", "--json").stdout)
        assert (content["enrolled"], content["jobs"][0]["phase"]) == (False, "finished")


class TestEnroll:
    def test_refuses_what_is_no_invitation(self, state_dir: Path) -> None:
        result = CliRunner().invoke(app, ["enroll", "-", "--state-dir", str(state_dir)], input="hello")
        assert result.exit_code != 0
        assert not (state_dir / "membership.json").exists()
