"""Ctrl-C before a program awaits it: one line, 130, no traceback."""

import os
import signal
import subprocess
import sys

import pytest
import typer

from splitlearn.interruptible import interruptible

SAID = "trunkline: interrupted\n"
SWALLOWS = """
import os, signal
from splitlearn.interruptible import loading
with loading("trunkline"):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
    except BaseException as error:
        raise ModuleNotFoundError("Could not import module") from error
"""
PROGRAMS = {
    "trunkline": ("backend.cli", "backend.cli.main"),
    "trunkline worker": ("worker.cli", "worker.command"),
    "trunkline-agent": ("client_agent.cli", "client_agent.cli.main"),
}
INTERRUPTED_AT = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, *_):
        if name == {late!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from {entry} import main
sys.exit(main())
"""


def run(program: str) -> tuple[int, str]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


class TestInterruptible:
    def test_is_a_line_and_a_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended, interruptible("trunkline"):
            os.kill(os.getpid(), signal.SIGINT)
        assert (ended.value.code, capsys.readouterr().err) == (130, SAID)

    def test_speaks_where_typer_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = typer.Typer()

        @app.command()
        def wait() -> None:
            raise KeyboardInterrupt

        with pytest.raises(SystemExit) as ended, interruptible("trunkline"):
            app([])
        assert (ended.value.code, capsys.readouterr().err) == (130, SAID)

    @pytest.mark.parametrize("code", [0, 2, 130])
    def test_leaves_other_ends_alone(self, capsys: pytest.CaptureFixture[str], code: int) -> None:
        with pytest.raises(SystemExit) as ended, interruptible("trunkline"):
            raise SystemExit(code)
        assert (ended.value.code, capsys.readouterr().err) == (code, "")

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_holds_while_a_program_loads(self, program: str) -> None:
        entry, late = PROGRAMS[program]
        assert run(INTERRUPTED_AT.format(entry=entry, late=late)) == (130, f"{program}: interrupted\n")


class TestLoading:
    def test_asks_no_library(self) -> None:
        assert run(SWALLOWS) == (130, SAID)
