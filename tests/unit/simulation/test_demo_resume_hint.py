"""The command that an interrupted run prints is one that a shell takes."""

import shlex
import sys
from pathlib import Path

import pytest

from splitlearn.simulation.cli import _program

MAIN = str(Path(sys.prefix) / "splitlearn" / "simulation" / "__main__.py")


@pytest.fixture
def trunkline(tmp_path: Path) -> Path:
    path = tmp_path / "trunkline"
    path.touch(mode=0o755)
    return path


def test_a_module_is_run_by_three_words_where_there_is_no_program(tmp_path: Path) -> None:
    words = shlex.split(shlex.join(_program(MAIN, scripts=tmp_path)))
    assert words == [sys.executable, "-m", "splitlearn.simulation"]


def test_the_program_is_named_by_its_path(trunkline: Path) -> None:
    assert _program(MAIN, scripts=trunkline.parent) == [str(trunkline)]


def test_the_program_is_named_shortly_where_the_shell_finds_it(
    trunkline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(trunkline.parent))
    assert _program(MAIN, scripts=trunkline.parent) == ["trunkline"]


def test_a_script_in_this_folder_is_named_from_here() -> None:
    assert _program(str(Path.cwd() / "bin" / "trunkline")) == ["bin/trunkline"]
