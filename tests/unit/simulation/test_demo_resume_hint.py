"""The command that an interrupted run prints is one that a shell takes."""

import shlex
import sys
from pathlib import Path

from splitlearn.simulation.cli import _program


def test_a_module_is_run_by_three_words() -> None:
    main = Path(sys.prefix) / "splitlearn" / "simulation" / "__main__.py"
    assert shlex.split(shlex.join(_program(str(main)))) == [sys.executable, "-m", "splitlearn.simulation"]


def test_a_script_in_this_folder_is_named_from_here() -> None:
    assert _program(str(Path.cwd() / "bin" / "trunkline")) == ["bin/trunkline"]
