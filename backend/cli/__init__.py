"""The command line ``trunkline``: the server's own commands, and those that speak to its API.

``demo`` is another program: it needs torch, which nothing here may load. It takes this process's place,
so that arguments, terminal, signals and exit code are its own.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

DEMO: Final = "demo"

__all__ = ["DEMO", "become_demo", "main"]


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == [DEMO]:
        become_demo(sys.argv[1:])
    try:
        from backend.cli.main import run  # noqa: PLC0415 - the demo must not wait for the server's libraries
    except ModuleNotFoundError as error:
        sys.exit(f"trunkline: {error.name} is missing; run: pip install 'trunkline[server]'")
    run()


def become_demo(arguments: Sequence[str]) -> None:
    """Replace this process by the demo's."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "splitlearn.simulation", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter, no shell
