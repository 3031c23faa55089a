"""Child processes end when they should, and are heard when they do not start."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitlearn.errors import LinkError
from splitlearn.processes import Child, ChildDiedError, Program, free_port, refuse_used_port

SLEEPER = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def _program(code: str, *arguments: str, stop_seconds: float = 5.0) -> Program:
    return Program("part", ("-c", code, *arguments), {"PATH": os.defpath}, stop_seconds=stop_seconds)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Child]:
    child = Child(_program(SLEEPER, str(tmp_path / "ready")), log_folder=tmp_path)
    child.start()
    child.wait_until((tmp_path / "ready").exists, timeout_seconds=20)
    yield child
    child.stop()


class TestChild:
    def test_ends_when_asked(self, sleeper: Child) -> None:
        assert sleeper.is_running
        sleeper.stop()
        assert sleeper.exit_code == -signal.SIGTERM
        assert sleeper.describe_end() == "was ended by SIGTERM"

    def test_is_killed_when_it_does_not_listen(self, tmp_path: Path) -> None:
        child = Child(_program(DEAF, str(tmp_path / "ready"), stop_seconds=0.1), log_folder=tmp_path)
        child.start()
        child.wait_until((tmp_path / "ready").exists, timeout_seconds=20)
        child.stop()
        assert child.exit_code == -signal.SIGKILL

    def test_says_why_it_did_not_start(self, tmp_path: Path) -> None:
        child = Child(
            _program("print('old', flush=True); raise SystemExit('no device')"), log_folder=tmp_path
        )
        child.start()
        with pytest.raises(ChildDiedError, match="part ended with code 1: no device"):
            child.wait_until(lambda: False, timeout_seconds=20)

    def test_is_given_up_when_it_takes_too_long(self, sleeper: Child) -> None:
        with pytest.raises(ChildDiedError, match=r"not ready after 0\.1 s"):
            sleeper.wait_until(lambda: False, timeout_seconds=0.1)

    def test_repeats_only_words_of_this_start(self, tmp_path: Path) -> None:
        (tmp_path / "part.log").write_text("words of an earlier start\n")
        child = Child(_program("pass"), log_folder=tmp_path)
        child.start()
        with pytest.raises(ChildDiedError, match="it said nothing"):
            child.wait_until(lambda: False, timeout_seconds=20)

    def test_never_shows_its_environment(self) -> None:
        assert "secret" not in repr(Program("part", (), {"TOKEN": "secret"}))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
    def test_ends_with_its_parent(self, tmp_path: Path) -> None:
        parent = (
            "import sys, time; from pathlib import Path; from splitlearn.processes import Child, Program\n"
            "folder = Path(sys.argv[1])\n"
            f"program = Program('part', ('-c', {SLEEPER!r}, str(folder / 'ready')), {{'PATH': ''}})\n"
            "child = Child(program, log_folder=folder); child.start()\n"
            "child.wait_until((folder / 'ready').exists, timeout_seconds=20)\n"
            "print(child.pid, flush=True); time.sleep(600)\n"
        )
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", parent, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as output:
            pid = int(output.readline())
            process.kill()
            process.wait()
        assert _is_gone_within(pid, seconds=10)


def _is_gone_within(pid: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # nobody may be there to reap it in a container
            return True
        time.sleep(0.02)
    return False


class TestPorts:
    def test_a_free_port_can_be_listened_on(self) -> None:
        refuse_used_port("127.0.0.1", free_port(), flag="--port")

    def test_a_used_port_is_refused_with_the_flag(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(LinkError, match=rf"127\.0\.0\.1:{port}.*--port"):
                refuse_used_port("127.0.0.1", port, flag="--port")
