"""The services of ``docker-compose.yml`` as processes of this machine: same commands, same environments.

What differs between this machine and a container (host names, ports, folders) is replaced by a table of
texts, which is printed. Nothing else of a command, an environment or a health check is changed.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splitlearn.errors import ProcessError
from tests.contract.compose_file import Service

_POLL_SECONDS = 0.2
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Replacements:
    """Texts of the file and what stands for them here; the longer one goes first, a number is a whole one."""

    table: Mapping[str, str]

    def in_text(self, text: str) -> str:
        """Replace all, once: what was put in is not looked at again."""
        longest_first = sorted(self.table, key=len, reverse=True)
        patterns = [rf"(?<!\w){old}(?!\w)" if old.isdecimal() else re.escape(old) for old in longest_first]
        return re.sub("|".join(patterns), lambda found: self.table[found.group()], text)

    def describe(self) -> str:
        """Return the table, for the test's output."""
        return "\n".join(f"  {old}  ->  {new}" for old, new in self.table.items())


@dataclass
class LocalService:
    """One service as a process.

    Args:
        service: As in the file.
        values: What ``.env`` says.
        replacements: What is another one here.
        programs: Folder of the image's commands, which go before this machine's.
        folder: For its log.
    """

    service: Service
    values: Mapping[str, str]
    replacements: Replacements
    programs: Path
    folder: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """Where its output goes, as ``docker compose logs`` would show it."""
        return self.folder / f"{self.service.name}.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start its command."""
        assert self._process is None or self._process.poll() is not None, "it runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the file's own command
                self._words(self.service.command),
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *, timeout_seconds: float) -> int:
        """Start it, wait for its end, and return its exit code."""
        self.start()
        assert self._process is not None
        return self._process.wait(timeout=timeout_seconds)

    def wait_until_healthy(self, *, timeout_seconds: float) -> None:
        """Ask its own health check until it passes.

        Raises:
            ProcessError: It ended, or took too long; with the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (self.is_healthy() and self.is_running):
            if not self.is_running or time.monotonic() > deadline:
                raise ProcessError(f"{self.service.name} is not healthy: {self.said()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def is_healthy(self) -> bool:
        """Run its health check once."""
        done = subprocess.run(  # noqa: S603 - the file's own command
            self._words(self.service.health_check),
            check=False,
            capture_output=True,
            env=self._environment(),
            timeout=20,
        )
        return done.returncode == 0

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def adapted(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return a command and environment as this service would run them, for ``exec`` and ``run``."""
        return self._words(words), self._environment()

    def stop(self) -> int | None:
        """End it as an engine does: SIGTERM, time to end, SIGKILL. Return its exit code."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(
                timeout=float(str(self.service.fields.get("stop_grace_period", "10s")).rstrip("s"))
            )
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def _words(self, words: Sequence[str]) -> list[str]:
        return [self.replacements.in_text(word) for word in words]

    def _environment(self) -> dict[str, str]:
        own = self.service.environment(self.values)
        mapped = {name: self.replacements.in_text(value) for name, value in own.items()}
        return {
            "PATH": f"{self.programs}:{_SYSTEM_PATH}",
            "HOME": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            **mapped,
        }
