"""One child process: started without a shell, logged to a file, asked to end before it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitlearn.errors import ProcessError

_POLL_SECONDS = 0.05
_MAX_LAST_WORDS = 2000
_BOUND = "splitlearn.processes.bound"


class ChildDiedError(ProcessError):
    """A child process ended before it was ready; the message says what it said last."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        name: For people and for the log's file.
        arguments: Of this interpreter: ``("-m", "module", ...)``.
        environment: The child's whole environment; may hold secrets.
        stop_seconds: After SIGTERM it is killed so much later.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    stop_seconds: float = 10.0


class Child:
    """A program that runs, or ran.

    On Linux it gets SIGTERM when its parent dies. A Ctrl-C in the terminal does not reach it: the parent
    decides.

    Args:
        program: What to run.
        log_folder: Gets ``<name>.log``, to which its output is appended.
    """

    def __init__(self, program: Program, *, log_folder: Path) -> None:
        self.program = program
        self.log_path = log_folder / f"{program.name}.log"
        self._log_begin = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_asked = False

    def start(self) -> None:
        """Start it; from the main thread, for Linux counts a thread's end as the parent's."""
        assert self._process is None or self._process.poll() is not None, "it runs"
        self._is_asked = False
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab", buffering=0) as log:
            self._log_begin = log.tell()
            command = [
                sys.executable,
                "-m",
                _BOUND,
                str(os.getpid()),
                sys.executable,
                *self.program.arguments,
            ]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.program.environment),
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with (minus the signal's number), or None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Wait until it is ready.

        Raises:
            ChildDiedError: It ended, or took too long.
        """
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise ChildDiedError(f"{self.program.name} {self.describe_end()}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ChildDiedError(
                    f"{self.program.name} was not ready after {timeout_seconds:g} s; see {self.log_path}"
                )
            time.sleep(_POLL_SECONDS)

    def signal(self, signum: int) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)

    def ask_to_stop(self) -> None:
        """Send SIGTERM; does not wait."""
        if not self._is_asked:
            self._is_asked = True
            self.signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it: SIGTERM, unless it was asked before, then SIGKILL. Returns when it is gone."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(timeout=self.program.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def describe_end(self) -> str:
        """Say how it ended."""
        code = self.exit_code
        if code is None:
            return "is running"
        return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def last_words(self) -> str:
        """Return the last line that it wrote since it was started."""
        try:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_begin, end - _MAX_LAST_WORDS))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].strip() if lines else f"it said nothing; see {self.log_path}"
