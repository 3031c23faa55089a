import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client_agent.cli.main import app
from splitlearn.errors import DataError
from tests.unit.client_agent.conftest import Write

ROWS = '{"text": "one", "n": 1}\n{"text": "two", "n": 2}\n{"text": "three", "n": 3}\n'


def agent(state_dir: Path, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"TRUNKLINE_AGENT_STATE_DIR": str(state_dir)})


@pytest.fixture
def notes(state_dir: Path, write: Write) -> Path:
    path = write("rows.jsonl", ROWS)
    assert agent(state_dir, "data", "add", "notes", str(path)).exit_code == 0
    return path


@pytest.mark.usefixtures("notes")
class TestData:
    def test_list_for_programs_tells_rows_and_state(self, state_dir: Path) -> None:
        [row] = json.loads(agent(state_dir, "data", "list", "--json").stdout)
        assert (row["name"], row["num_rows"], row["state"]) == ("notes", 3, "as added")

    def test_list_says_that_a_file_has_changed(self, state_dir: Path, notes: Path) -> None:
        notes.write_text(ROWS + ROWS)
        [row] = json.loads(agent(state_dir, "data", "list", "--json").stdout)
        assert row["state"] == "changed since it was added"

    def test_list_says_that_a_file_is_gone(self, state_dir: Path, notes: Path) -> None:
        notes.unlink()
        [row] = json.loads(agent(state_dir, "data", "list", "--json").stdout)
        assert row["state"] == "file is gone"

    def test_preview_shows_the_first_rows_only(self, state_dir: Path) -> None:
        output = agent(state_dir, "data", "preview", "notes", "-n", "2").stdout
        assert "two" in output
        assert "three" not in output

    def test_preview_for_programs_is_the_rows(self, state_dir: Path) -> None:
        output = agent(state_dir, "data", "preview", "notes", "-n", "1", "--json").stdout
        assert json.loads(output) == [{"text": "one", "n": 1}]

    def test_remove_withdraws_it(self, state_dir: Path) -> None:
        agent(state_dir, "data", "remove", "notes")
        assert json.loads(agent(state_dir, "data", "list", "--json").stdout) == []


class TestAdd:
    def test_refuses_a_name_that_no_job_could_use(self, state_dir: Path, write: Write) -> None:
        result = agent(state_dir, "data", "add", "My Notes", str(write("a.txt", "x\n")))
        assert isinstance(result.exception, DataError)

    def test_maps_columns(self, state_dir: Path, write: Write) -> None:
        path = write("a.csv", "sentence\nx\n")
        result = agent(state_dir, "data", "add", "a", str(path), "--columns", "text=sentence", "--json")
        assert json.loads(result.stdout)["columns"] == {"text": ["text"]}

    def test_says_which_rows_lack_a_column_and_what_is_not_text(self, state_dir: Path, write: Write) -> None:
        path = write("a.jsonl", '{"text": "x", "id": "1"}\n{"text": 5, "id": "2"}\n{"id": "3"}\n')
        assert agent(state_dir, "data", "add", "a", str(path)).stdout.splitlines() == [
            "added a: 3 rows, columns id, text (number, text)",
            "column text: missing in 1 of 3 rows",
        ]

    def test_says_of_a_missing_file_that_it_is_missing(self, state_dir: Path, tmp_path: Path) -> None:
        result = agent(state_dir, "data", "add", "a", str(tmp_path / "nope"))
        assert isinstance(result.exception, DataError)
        assert "No such file" in result.exception.message

    def test_keeps_nothing_of_a_file_with_bad_rows(self, state_dir: Path, write: Write) -> None:
        agent(state_dir, "data", "add", "a", str(write("a.jsonl", "no\n")))
        assert json.loads(agent(state_dir, "data", "list", "--json").stdout) == []


@pytest.mark.parametrize("words", [("status",), ("forget",), ("data", "list"), ("data", "remove")])
def test_help_ends_with_an_example(state_dir: Path, words: tuple[str, ...]) -> None:
    assert f"Example: trunkline-agent {' '.join(words)}" in agent(state_dir, *words, "--help").stdout
