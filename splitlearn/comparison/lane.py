"""``python -m splitlearn.comparison.lane FOLDER``: loads the libraries once, and forks for each run.

Loading them takes longer than a small run. Each run still is a process of its own, with its own memory, that
may be killed without harm to the next. The lane itself starts no thread, so nothing is lost in a fork.

The lane takes the requests that appear in its folder, one after another::

    FOLDER/<run>.request.json   what is asked; gone when the run has ended
    FOLDER/<run>.result.json    what the run came to
    FOLDER/<run>.log            what it printed
    FOLDER/<run>.ended          its exit code; minus the signal's number where one ended it
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from splitlearn.processes.bound import end_with_parent

REQUEST, RESULT, LOG, ENDED = ".request.json", ".result.json", ".log", ".ended"
_LOOK_SECONDS = 0.05

RunFile = Callable[[Path, Path], int]
"""Runs the request in one file, writes the result to another, returns the exit code."""


def serve(folder: Path, run: RunFile) -> NoReturn:
    """Take requests for ever; ended by a signal, and the run of the moment with it."""
    running: list[int] = []

    def end(signum: int, _: FrameType | None) -> None:
        for pid in running:
            os.kill(pid, signal.SIGKILL)  # it holds nothing that must be put in order
            os.waitpid(pid, 0)
        os._exit(128 + signum)

    signal.signal(signal.SIGTERM, end)
    while True:
        asked = next(iter(sorted(folder.glob(f"*{REQUEST}"))), None)
        if asked is None:
            time.sleep(_LOOK_SECONDS)
            continue
        name = asked.name.removesuffix(REQUEST)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the number is noted
        pid = os.fork()
        if pid == 0:
            _become_the_run(asked, folder / f"{name}{RESULT}", folder / f"{name}{LOG}", run)
        running.append(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _, status = os.waitpid(pid, 0)
        running.clear()
        asked.unlink()
        _note(folder / f"{name}{ENDED}", os.waitstatus_to_exitcode(status))


def _become_the_run(asked: Path, answered: Path, log: Path, run: RunFile) -> NoReturn:
    """Run in the forked process, whatever happens; it must never return into the lane's loop."""
    code = 1
    try:
        end_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = run(asked, answered)
    except BaseException:  # noqa: BLE001 - also an exit: what happened is in the log, and the code says so
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _note(path: Path, code: int) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(str(code))
    temporary.replace(path)


def main(arguments: list[str]) -> NoReturn:
    """Load what runs need, and serve."""
    from splitlearn.comparison.one_run import run_file  # noqa: PLC0415 - what a lane is for: load it once

    serve(Path(arguments[0]), run_file)


if __name__ == "__main__":
    main(sys.argv[1:])
