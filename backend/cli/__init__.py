"""The command line ``trunkline``: the server's own commands, and those that speak to its API.

``compare``, ``demo`` and ``worker`` are other programs: they need torch, which nothing here may load. They
take this process's place, so that arguments, terminal, signals and exit code are their own.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

from splitlearn.interruptible import interruptible

COMPARE: Final = "compare"
DEMO: Final = "demo"
WORKER: Final = "worker"

__all__ = ["COMPARE", "DEMO", "WORKER", "become_compare", "become_demo", "become_worker", "main"]


def main() -> None:
    """Run the command line."""
    with interruptible("trunkline"):
        _run()


def _run() -> None:
    if sys.argv[1:2] == [COMPARE]:
        become_compare(sys.argv[1:])
    if sys.argv[1:2] == [DEMO]:
        become_demo(sys.argv[1:])
    if sys.argv[1:2] == [WORKER]:
        become_worker(sys.argv[2:])
    try:
        from backend.cli.main import run  # noqa: PLC0415 - the demo must not wait for the server's libraries
    except ModuleNotFoundError as error:
        sys.exit(f"trunkline: {error.name} is missing; run: pip install 'trunkline[server]'")
    run()


def become_compare(arguments: Sequence[str]) -> None:
    """Replace this process by the comparison's."""
    _become("splitlearn.comparison", arguments)


def become_demo(arguments: Sequence[str]) -> None:
    """Replace this process by the demo's."""
    _become("splitlearn.simulation", arguments)


def become_worker(arguments: Sequence[str]) -> None:
    """Replace this process by a worker's."""
    _become("worker", arguments)


def _become(module: str, arguments: Sequence[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", module, *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter, no shell
