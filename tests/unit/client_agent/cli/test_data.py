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


BOOLQ = '{"question": "is it so", "passage": "It is so.", "label": true}\n' * 3


class TestPresets:
    def test_are_listed_with_all_their_parts(self, state_dir: Path) -> None:
        rows = {row["name"]: row for row in json.loads(agent(state_dir, "data", "presets", "--json").stdout)}
        assert rows["multirc"]["layout"] == "multirc"
        assert rows["multirc"]["metrics"] == ["f1", "exact_match"]
        assert rows["cb"]["task"]["kind"] == "choice"

    def test_one_is_shown_as_a_specification_takes_it(self, state_dir: Path) -> None:
        shown = json.loads(agent(state_dir, "data", "presets", "boolq").stdout)
        assert shown["task"]["answers"] == {"false": " no", "true": " yes"}

    def test_say_how_a_file_is_read_and_which_tasks_get_it(self, state_dir: Path, write: Write) -> None:
        path = write("a.jsonl", BOOLQ)
        result = agent(state_dir, "data", "add", "a", str(path), "--preset", "boolq", "--json")
        added = json.loads(result.stdout)
        assert (added["task"], added["layout"], added["preset"]) == ("choice", "rows", "boolq")

    def test_refuse_a_file_without_their_columns(self, state_dir: Path, write: Write) -> None:
        path = write("a.jsonl", '{"question": "x"}\n')
        result = agent(state_dir, "data", "add", "a", str(path), "--preset", "boolq")
        assert isinstance(result.exception, DataError)
        assert "reads 'passage', 'question', 'label', the file has 'question'" in result.exception.message
        assert json.loads(agent(state_dir, "data", "list", "--json").stdout) == []

    def test_refuse_another_kind_of_task(self, state_dir: Path, write: Write) -> None:
        preset = ("--preset", "boolq")
        result = agent(
            state_dir, "data", "add", "a", str(write("a.jsonl", BOOLQ)), *preset, "--task", "causal-lm"
        )
        assert isinstance(result.exception, DataError)
        assert result.exception.message == (
            "--task causal-lm and --preset boolq contradict each other: the preset is choice; "
            "leave out one of the two"
        )
        assert json.loads(agent(state_dir, "data", "list", "--json").stdout) == []
        again = agent(
            state_dir, "data", "add", "a", str(write("a.jsonl", BOOLQ)), *preset, "--task", "choice"
        )
        assert again.exit_code == 0

    def test_take_columns_of_other_names(self, state_dir: Path, write: Write) -> None:
        path = write("a.jsonl", BOOLQ.replace("passage", "context"))
        columns = ("--columns", "passage=context")
        assert agent(state_dir, "data", "add", "a", str(path), "--preset", "boolq", *columns).exit_code == 0

    def test_lay_out_nested_files(self, state_dir: Path, write: Write) -> None:
        path = write(
            "a.jsonl",
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        )
        result = agent(state_dir, "data", "add", "a", str(path), "--layout", "messages", "--json")
        assert set(json.loads(result.stdout)["columns"]) == {"messages", "prompt", "answer", "group"}


class TestPreviewOfATask:
    @pytest.fixture
    def questions(self, state_dir: Path, write: Write) -> None:
        agent(state_dir, "data", "add", "a", str(write("a.jsonl", BOOLQ)), "--preset", "boolq")

    @pytest.mark.usefixtures("questions")
    def test_shows_what_is_read_and_what_is_learned(self, state_dir: Path) -> None:
        lines = agent(state_dir, "data", "preview", "a", "-n", "1").stdout.splitlines()
        assert lines[:6] == [
            "line 1",
            "  reads  |It is so.",
            "         |Question: is it so?",
            "         |Answer:|",
            "  learns | yes|",
            "  other  | no|",
        ]

    @pytest.mark.usefixtures("questions")
    def test_takes_other_parts(self, state_dir: Path) -> None:
        words = ("--prompt", "{question}", "--answers", "true=ja,false=nein", "--json")
        shown = json.loads(agent(state_dir, "data", "preview", "a", "-n", "1", *words).stdout)
        assert [(row["reads"], row["learns"], row["others"]) for row in shown["rows"]] == [
            ("is it so", "ja", ["nein"])
        ]

    @pytest.mark.usefixtures("questions")
    def test_counts_what_a_model_would_cut_of_the_whole_file(self, state_dir: Path, test_data: Path) -> None:
        model = str(test_data / "models" / "stories260K")
        words = ("-n", "1", "--tokenizer", model, "--max-tokens", "12", "--json")
        shown = json.loads(agent(state_dir, "data", "preview", "a", *words).stdout)
        counts = shown["truncation"]
        assert (counts["rows"], counts["rows_truncated"], counts["prompts_cut"]) == (3, 3, 3)
        assert counts["tokens_cut_left"] == 3 * shown["rows"][0]["cut_left"] > 0

    @pytest.mark.usefixtures("questions")
    def test_by_a_jobs_specification(self, state_dir: Path, write: Write) -> None:
        spec = {
            "model": "m",
            "silos": [{"name": "a", "dataset": "a"}],
            "task": {"kind": "sft", "prompt": "{passage}", "answer": "{question}"},
        }
        job = write("job.json", json.dumps(spec))
        shown = json.loads(agent(state_dir, "data", "preview", "a", "--job", str(job), "--json").stdout)
        assert (shown["rows"][0]["reads"], shown["rows"][0]["learns"]) == ("It is so.", "is it so")

    @pytest.mark.usefixtures("notes")
    def test_refuses_other_parts_of_no_task(self, state_dir: Path) -> None:
        result = agent(state_dir, "data", "preview", "notes", "--prompt", "{text}")
        assert isinstance(result.exception, DataError)
        assert "--preset or --job" in result.exception.message


@pytest.mark.parametrize("words", [("status",), ("forget",), ("data", "list"), ("data", "remove")])
def test_help_ends_with_an_example(state_dir: Path, words: tuple[str, ...]) -> None:
    assert f"Example: trunkline-agent {' '.join(words)}" in agent(state_dir, *words, "--help").stdout
