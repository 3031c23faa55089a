"""The lanes as the runner sees them: runs are given to them, and end."""

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from splitlearn.comparison.lane import ENDED, LOG, REQUEST, RESULT
from splitlearn.comparison.run_files import write_document
from splitlearn.processes import Child, Program

_PROGRAM = ("-m", "splitlearn.comparison.lane")
_MAX_LAST_WORDS = 4000


@dataclass
class StartedRun:
    """A run that was given to a lane.

    Attributes:
        name: The run.
        folder: The lane's.
        since: When it was given, by the monotonic clock.
        exit_code: What it ended with, minus the signal's number; None while it runs.
    """

    name: str
    folder: Path
    since: float = field(default_factory=time.monotonic)
    exit_code: int | None = None

    @property
    def seconds(self) -> float:
        """Time since it was given."""
        return time.monotonic() - self.since

    @property
    def result_path(self) -> Path:
        """Where its result is."""
        return self.folder / f"{self.name}{RESULT}"

    @property
    def log_path(self) -> Path:
        """What it printed."""
        return self.folder / f"{self.name}{LOG}"

    @property
    def share(self) -> float:
        """How much of it is done."""
        share = last_said(self.log_path).get("share")
        return share if isinstance(share, float) else 0.0

    def describe_end(self) -> str:
        """Say how it ended."""
        code = self.exit_code or 0
        return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def last_words(log: Path) -> str:
    """Return the last line of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _MAX_LAST_WORDS))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def last_said(log: Path) -> dict[str, object]:
    """Return what a run said last; nothing where that was not one of our lines."""
    try:
        content = json.loads(last_words(log))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


class Lane:
    """One process that runs what it is given, one run at a time; it is started when it is first needed.

    Args:
        number: Tells it from the others.
        folder: Where all lanes have their folders.
        environment: The process's whole environment.
        program: What is started; the folder's path follows.
    """

    def __init__(
        self,
        number: int,
        *,
        folder: Path,
        environment: Mapping[str, str],
        program: tuple[str, ...] = _PROGRAM,
    ) -> None:
        name = f"lane-{number}"
        self._folder = folder / name
        self._child = Child(
            Program(name, (*program, str(self._folder)), environment, stop_seconds=5.0), log_folder=folder
        )
        self._run: StartedRun | None = None

    @property
    def is_idle(self) -> bool:
        """Whether a run can be given to it."""
        return self._run is None

    @property
    def run(self) -> StartedRun | None:
        """The run of the moment."""
        return self._run

    def give(self, name: str, request: BaseModel) -> StartedRun:
        """Give it a run.

        Raises:
            StorageError: The request cannot be written.
        """
        assert self._run is None, "one run at a time"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = StartedRun(name, self._folder)
        for path in (self._run.result_path, self._folder / f"{name}{ENDED}"):
            path.unlink(missing_ok=True)
        write_document(self._folder / f"{name}{REQUEST}", request)
        if not self._child.is_running:
            self._child.start()
        return self._run

    def take_ended(self) -> StartedRun | None:
        """Return the run if it has ended, and be idle; None while it runs.

        A lane that died takes its run with it: the run has ended as the lane did.
        """
        run = self._run
        if run is None:
            return None
        is_running = self._child.is_running  # looked at first: it may note the end, and then die
        noted = self._folder / f"{run.name}{ENDED}"
        if noted.exists():
            run.exit_code = int(noted.read_text())
        elif not is_running:
            (self._folder / f"{run.name}{REQUEST}").unlink(missing_ok=True)
            run.exit_code = self._child.exit_code or 1
            with run.log_path.open("ab") as log, self._child.log_path.open("rb") as own:
                shutil.copyfileobj(own, log)
        else:
            return None
        self._run = None
        return run

    def ask_to_stop(self) -> None:
        """Send SIGTERM; does not wait."""
        self._child.ask_to_stop()

    def stop(self) -> None:
        """End it, and its run; returns when both are gone."""
        self._child.stop()
