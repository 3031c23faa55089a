"""The command as a user types it, against a real server process."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from backend.cli import main; main()"]
PATIENCE_SECONDS = 60


def _environment(state: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251
    cheap = {
        "TRUNKLINE_PASSWORD_MEMORY_KIB": "64",
        "TRUNKLINE_PASSWORD_PASSES": "1",
        "TRUNKLINE_PASSWORD_LANES": "1",
    }
    return {**kept, **cheap, "TRUNKLINE_STATE_DIR": str(state), **more}


def _run(environment: dict[str, str], *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return _run(self.environment, *arguments, text=text)

    def events(self) -> http.client.HTTPResponse:
        """The project's stream of events, open."""
        url = f"http://127.0.0.1:{self.environment['TRUNKLINE_PORT']}/api/v1/events"
        asked = urllib.request.Request(
            url, headers={"Authorization": f"Bearer {self.environment['TRUNKLINE_TOKEN']}"}
        )
        opened = urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS)  # noqa: S310 - see above
        assert isinstance(opened, http.client.HTTPResponse)
        return opened

    @contextmanager
    def half_a_question(self) -> Iterator[socket.socket]:
        """A connection with a request of which the server has seen the head."""
        address = ("127.0.0.1", int(self.environment["TRUNKLINE_PORT"]))
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(_QUESTION[0])
            assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
            yield connection


_BODY = b'{"name": "nobody", "password": "a-wrong-password"}'
_QUESTION = (
    b"POST /api/v1/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(_BODY),
    _BODY,
)
"""A request's head and body. The server answers the head alone by 100: then it is being served."""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    port = str(_free_port())
    address = f"http://127.0.0.1:{port}"
    environment = _environment(tmp_path / "state", TRUNKLINE_PORT=port, TRUNKLINE_URL=address)
    assert _run(environment, "db", "upgrade").returncode == 0
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([*COMMAND, "api"], env=environment, stderr=file)  # noqa: S603 - our own
    try:
        _wait_until_ready(f"{address}/readyz", process, log)
        yield Running(environment, process, log)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()}")


class TestApi:
    def test_from_first_start_to_revoked_silo(self, running: Running) -> None:
        log = running.log.read_text()
        first = re.search(r"user admin, password (\S+)", log)
        assert first is not None
        assert "federation root lies on this machine" in log
        signed_in = running.run("tokens", "sign-in", "admin", text=first[1] + "\n")
        assert signed_in.returncode == 0, signed_in.stderr
        running.environment["TRUNKLINE_TOKEN"] = signed_in.stdout.strip()
        answer = running.run("silos", "invite", "north", "--json")
        assert answer.returncode == 0, answer.stderr
        invited = json.loads(answer.stdout)
        assert invited["fingerprint"] in log
        assert invited["invitation"].startswith("trunkline-invitation-1.")
        assert json.loads(running.run("silos", "list", "--json").stdout) == []
        refused = running.run("silos", "revoke", "north")
        assert refused.returncode == 12
        assert "'north'" in refused.stderr
        with running.events() as events, running.half_a_question() as asking:
            assert next(events) == b": begin\n"
            running.process.send_signal(signal.SIGTERM)
            assert events.read() == b"\n"  # whole: one that is cut off has no last chunk, and raises
            asking.sendall(_QUESTION[1])
            assert asking.recv(1024).startswith(b"HTTP/1.1 401 ")  # what had begun is answered
        assert running.process.wait(PATIENCE_SECONDS) == 0
        after = running.run("users", "list")
        assert after.returncode == 12
        assert "trunkline api" in after.stderr
        assert first[1] not in running.log.read_text()[len(log) :]


class TestRefusals:
    def test_server_refuses_an_empty_database(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        state.mkdir()
        result = _run(_environment(state), "api")
        assert result.returncode == 5
        assert "trunkline db upgrade" in result.stderr

    def test_wrong_setting_is_named(self, tmp_path: Path) -> None:
        result = _run(_environment(tmp_path, TRUNKLINE_PORT="many"), "api")
        assert result.returncode == 2
        assert "TRUNKLINE_PORT" in result.stderr

    def test_unknown_command_is_a_usage_error(self, tmp_path: Path) -> None:
        assert _run(_environment(tmp_path), "nothing").returncode == 2


class TestDemo:
    def test_hands_over_arguments_and_exit_code(self, tmp_path: Path) -> None:
        result = _run(_environment(tmp_path), "demo", "--silos", "none")
        assert result.returncode == 2
        assert "--silos" in result.stderr

    def test_help_is_the_demos_own(self, tmp_path: Path) -> None:
        result = _run(_environment(tmp_path), "demo", "--help")
        assert result.returncode == 0
        assert "--schedule" in result.stdout
