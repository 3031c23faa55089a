"""What a command line says of a wrong option: the value that was typed, the option, the limit."""

import pytest
from typer.testing import CliRunner

from backend.cli.main import app as trunkline
from client_agent.cli.main import app as agent
from splitlearn.comparison.cli import app as comparing
from splitlearn.simulation.cli import app as demonstrating
from worker.command import app as working

RUNNER = CliRunner(env={"COLUMNS": "400", "TERM": "dumb"})


@pytest.mark.parametrize(
    ("app", "words", "sentence"),
    [
        (comparing, ["compare", "x.yaml", "--seeds", "0"], "'0' should be greater than or equal to 1"),
        (comparing, ["compare", "x.yaml", "--seeds", "many"], "'--seeds': 'many' should be a valid integer"),
        (demonstrating, ["demo", "--learning-rate", "x"], "'--learning-rate': 'x' should be a valid number"),
        (demonstrating, ["demo", "--schedule", "foo"], "'--schedule': 'foo' is not one of 'serial'"),
        (agent, ["generate", "0f3c", "--max-new-tokens", "-4"], "'-4' should be greater than"),
        (trunkline, ["jobs", "list", "--state", "lost"], "'--state': 'lost' is not one of"),
        (trunkline, ["up", "--port", "99999"], "'--port': '99999' should be less than or equal to 65535"),
    ],
)  # fmt: skip
def test_names_value_option_and_limit(app: object, words: list[str], sentence: str) -> None:
    found = RUNNER.invoke(app, words)  # type: ignore[arg-type]
    assert found.exit_code == 2
    assert sentence in " ".join(found.stderr.replace("│", " ").split())


def test_of_a_command_that_is_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_WORKER_INVITATION", raising=False)
    found = RUNNER.invoke(working, ["--threads", "none"])
    assert "'--threads': 'none' should be a valid integer" in " ".join(found.stderr.replace("│", " ").split())


def test_shortens_what_is_long() -> None:
    found = RUNNER.invoke(comparing, ["compare", "x.yaml", "--seeds", "9" * 3000])
    assert found.exit_code == 2
    assert len(found.stderr) < 1500
