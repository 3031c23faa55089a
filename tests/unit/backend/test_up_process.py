"""``trunkline up`` as a process: what it starts, starts again, and leaves behind, which is nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.slow

COMMAND = [
    sys.executable,
    "-c",
    "from backend.cli import main; main()",
    "up",
    "--port",
    "0",
    "--gateway-port",
    "0",
]
PATIENCE_SECONDS = 60.0


def wait_for(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class Up:
    """A running ``trunkline up``; all its processes carry the folder's path in their environment."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.state, self._temporary = folder / "state", folder / "temporary"
        self._temporary.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251
        environment = {
            **kept,
            "TRUNKLINE_STATE_DIR": str(self.state),
            "TRUNKLINE_PASSWORD_MEMORY_KIB": "64",
            "TRUNKLINE_PASSWORD_PASSES": "1",
            "TRUNKLINE_PASSWORD_LANES": "1",
            "TMPDIR": str(self._temporary),
        }
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*COMMAND, *flags], env=environment, stdout=log, stderr=log
            )
        wait_for(
            lambda: "Ctrl-C stops all of it" in self.said or self.process.poll() is not None, "the start"
        )
        assert self.process.poll() is None, self.said
        self.described = self.describe()

    @property
    def said(self) -> str:
        return self.log.read_text()

    def describe(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.state / "up.json").read_text())
        return told

    def answers(self, path: str = "/readyz") -> bool:
        try:
            urllib.request.urlopen(self.described["url"] + path, timeout=2).close()  # noqa: S310 - our own
        except OSError:
            return False
        return True

    def ends(self, signum: int) -> int:
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE_SECONDS)

    def processes(self) -> list[int]:
        """All that run with this folder, the first one apart."""
        mark = str(self.state).encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = mark in (folder / "environ").read_bytes()
                is_dead = "Z" in (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if is_ours and not is_dead:
                found.append(int(folder.name))
        return [pid for pid in found if pid != self.process.pid]

    def assert_nothing_is_left(self) -> None:
        wait_for(lambda: not self.processes(), "the end of all parts")
        for address in (self.described["url"], self.described["gateway_url"]):
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", urlsplit(address).port))
        # Torch makes an empty cache for itself, where no process before has named one to its children.
        left = [path for path in self._temporary.rglob("*") if not path.name.startswith("torchinductor_")]
        assert left == []
        assert not list(self.state.rglob("*.writing"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*flags: str) -> Up:
        started.append(Up(tmp_path, *flags))
        return started[-1]

    yield start
    for up in started:
        for pid in (up.process.pid, *up.processes()):
            if up.process.poll() is None or pid != up.process.pid:
                os.kill(pid, signal.SIGKILL)
        up.process.wait()


class TestUp:
    def test_starts_all_restarts_what_is_killed_and_ends_with_ctrl_c(self, start: Callable[..., Up]) -> None:
        up = start("--device", "cpu", "--threads", "1")
        assert f"Trunkline is up: {up.described['url']}" in up.said
        assert len(re.findall(r"user admin, password \S+", up.said)) == 1
        before = up.described["pids"]
        assert list(before) == ["api", "gateway", "worker-1"]
        for name in ("api", "gateway"):
            os.kill(before[name], signal.SIGKILL)
        wait_for(lambda: up.said.count("was started again") == 2, "the restarts")
        assert "api was ended by SIGKILL" in up.said
        after = up.describe()["pids"]
        assert {name for name in before if before[name] != after[name]} == {"api", "gateway"}
        wait_for(up.answers, "the API to answer again")
        assert up.ends(signal.SIGINT) == 0
        up.assert_nothing_is_left()
        assert not (up.state / "up.json").exists()
        assert "Traceback" not in up.said

    def test_shows_the_password_once_and_leaves_nothing_however_it_ends(
        self, start: Callable[..., Up]
    ) -> None:
        first = start("--workers", "0")
        assert first.ends(signal.SIGTERM) == 0
        first.assert_nothing_is_left()
        second = start("--workers", "0")
        assert "first start" not in second.said
        assert second.described["admin"] is None
        assert second.ends(signal.SIGKILL) == -signal.SIGKILL
        second.assert_nothing_is_left()
