"""Ends a process before its n-th write, for every n, and looks at what the next process finds.

    python -m tests.faults.power_cuts SCENARIO FOLDER

A program of its own, because it forks: everything is loaded once, nothing is computed before the fork, and
a child ends by ``os._exit``, so that no clean-up runs. A write is whatever changes a folder's files: opening
one to write, making, renaming and removing, and bringing any of it to the disk. What a library writes, not by
Python, lies between two of these.
"""

import itertools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"})
_REMOVALS = frozenset({"os.remove", "os.rmdir"})
_CUT, _FAILED = 9, 1
MAX_POINTS = 500


class Scenario(Protocol):
    """Something that writes; see :func:`cut_everywhere`."""

    def once(self, base: Path) -> None:
        """Make what all runs share, in a process of its own."""

    def prepare(self, base: Path, folder: Path, /) -> None:
        """Make what is there before the cut."""

    def act(self, base: Path, folder: Path, /) -> None:
        """Write; the cut comes somewhere in here."""

    def check(self, base: Path, folder: Path, /) -> None:
        """Look at what was left, and go on with it; raises AssertionError."""


def cut_everywhere(scenario: Scenario, base: Path) -> dict[str, Any]:
    """Cut before every write; return how many there are, and what was wrong after which."""
    problems: list[str] = []
    base.mkdir(parents=True, exist_ok=True)
    problems += _wrong("once", _in_child(lambda: scenario.once(base), base), {0}, base)
    for number in itertools.count(1):
        folder = base / f"cut-{number}"
        folder.mkdir()
        code = _in_child(lambda at=number, here=folder: _act(scenario, base, here, at), base)  # type: ignore[misc]
        problems += _wrong(f"write {number}", code, {0, _CUT}, base)
        checked = _in_child(lambda here=folder: scenario.check(base, here), base)  # type: ignore[misc]
        problems += _wrong(f"after a cut before write {number}", checked, {0}, base)
        shutil.rmtree(folder)
        if code != _CUT or number == MAX_POINTS:
            return {"writes": number - 1, "problems": problems}
    raise AssertionError("counted for ever")


def _act(scenario: Scenario, base: Path, folder: Path, number: int) -> None:
    scenario.prepare(base, folder)
    _arm(folder, number)
    scenario.act(base, folder)


def _arm(folder: Path, number: int) -> None:
    """End this process before its n-th write below a folder."""
    seen = itertools.count(1)
    root = str(folder)

    def strike() -> None:
        if next(seen) == number:
            os._exit(_CUT)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
        # A tree is removed by names within an open folder: of all trees, these alone are removed here.
        is_within = event in _REMOVALS and not os.path.isabs(str(arguments[0]))  # noqa: PTH117 - as it was named
        if is_within or ((is_open or event in _CHANGES) and str(arguments[0]).startswith(root)):
            strike()

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        strike()
        flush(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(hear)


def _in_child(work: Callable[[], None], base: Path) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = _FAILED
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - told by the parent
        (base / "trouble").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _wrong(what: str, code: int, expected: Iterable[int], base: Path) -> list[str]:
    if code in expected:
        return []
    trouble = base / "trouble"
    return [f"{what}: code {code}: {trouble.read_text() if trouble.exists() else ''}"]


def main() -> None:
    """Run the scenario that the command line names."""
    from tests.faults.torn_scenarios import SCENARIOS  # noqa: PLC0415 - which takes this module's protocol

    name, folder = sys.argv[1:]
    sys.stdout.write(json.dumps(cut_everywhere(SCENARIOS[name](), Path(folder))))


if __name__ == "__main__":
    main()
