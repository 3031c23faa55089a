"""PostgreSQL and Redis of one's own: own folder, free port, another user than root; to be killed."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from redis import Redis
from redis.exceptions import RedisError

from splitlearn.errors import ProcessError
from splitlearn.processes import free_port

_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_USERS = ("postgres", "nobody")
"""Who runs the servers where we are root: PostgreSQL refuses to be."""
_DEBIAN = Path("/usr/lib/postgresql")


class ServerAbsentError(Exception):
    """A server's program is not on this machine; the sentence says which, and how to get it."""


@dataclass
class OwnServer:
    """A server's process: started, killed, started again on what it left.

    Attributes:
        name: For people.
        url: Where clients find it, with its password.
        command: Words.
        folder: Its own; deleted with it.
        is_ready: Whether it answers.
        stop_signal: Asks it to end in order, now.
    """

    name: str
    url: str = field(repr=False)
    command: Sequence[str]
    folder: Path
    is_ready: Callable[[], bool]
    stop_signal: signal.Signals
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ProcessError: It ended or is late; with the end of its log.
        """
        assert self._process is None or self._process.poll() is not None, "it runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a list of words of ours, no shell
                [*_as_other_user(pdeathsig=self.stop_signal), *self.command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-1000:]
                raise ProcessError(f"{self.name} does not answer: {said}; see {self.log}")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL to it and its children; returns when all are gone."""
        assert self._process is not None, "not started"
        own = psutil.Process(self._process.pid)
        everyone = [own, *own.children(recursive=True)]
        for process in everyone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(everyone, timeout=_STOP_SECONDS)

    def stop(self) -> None:
        """End it, and delete its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def own_postgresql() -> Iterator[OwnServer]:
    """Make a PostgreSQL server with one empty database; it runs until the block is left.

    Raises:
        ServerAbsentError: Its programs are not on this machine.
    """
    programs = _postgresql_programs()
    folder, port, password = _own_folder("postgresql"), free_port(), secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password)
    _give_away(secret)
    data = folder / "data"
    url = f"postgresql://trunkline:{password}@127.0.0.1:{port}/postgres"
    server = OwnServer(
        "PostgreSQL",
        url,
        # Sockets in its own folder: nothing of it is anywhere else.
        (
            *(str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100"),
        ),
        folder,
        lambda: _answers_postgresql(url),
        signal.SIGINT,
    )
    try:
        _initialise(programs, data, secret)
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def own_redis() -> Iterator[OwnServer]:
    """Make a Redis server that keeps nothing on disk, as in production; it runs until the block is left.

    Raises:
        ServerAbsentError: Its program is not on this machine.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ServerAbsentError("no redis-server on this machine; install Redis")
    folder, port, password = _own_folder("redis"), free_port(), secrets.token_hex(16)
    settings = folder / "redis.conf"
    settings.write_text(
        f'bind 127.0.0.1\nport {port}\nsave ""\nappendonly no\ndir {folder}\nrequirepass {password}\n'
    )
    _give_away(settings)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    server = OwnServer(
        "Redis", url, (program, str(settings)), folder, lambda: _answers_redis(url), signal.SIGTERM
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _initialise(programs: Path, data: Path, secret: Path) -> None:
    done = subprocess.run(  # noqa: S603 - a list of words of ours, no shell
        [
            *_as_other_user(),
            *(str(programs / "initdb"), "-D", str(data), "--username=trunkline", "--encoding=UTF8"),
            *("--locale=C", "--auth=scram-sha-256", f"--pwfile={secret}"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=data.parent,
    )
    if done.returncode:
        raise ProcessError(f"initdb ended with code {done.returncode}: {done.stderr[-1000:]}")


def _postgresql_programs() -> Path:
    found = shutil.which("initdb")
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found is not None and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    if versions:
        return versions[-1].parent
    raise ServerAbsentError("no PostgreSQL server programs (initdb, postgres) here; install PostgreSQL")


def _own_folder(name: str) -> Path:
    # Not below a test's own folder: another user than ours has to reach it.
    folder = Path(tempfile.mkdtemp(prefix=f"trunkline-{name}-"))
    _give_away(folder)
    return folder


def _give_away(path: Path) -> None:
    path.chmod(0o700 if path.is_dir() else 0o600)
    if (user := _other_user()) is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def _other_user() -> pwd.struct_passwd | None:
    """Return who shall run a server in our place; None where we are not root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerAbsentError(f"we are root and there is no user {' or '.join(_USERS)} to run a server as")


def _as_other_user(*, pdeathsig: signal.Signals | None = None) -> list[str]:
    """Return the words before a command: by whom it runs, and that it ends with us."""
    program, user = shutil.which("setpriv"), _other_user()
    if program is None:
        if user is not None:
            raise ServerAbsentError("we are root and there is no setpriv (util-linux) to run a server by it")
        return []
    as_user = () if user is None else (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    ending = () if pdeathsig is None else ("--pdeathsig", pdeathsig.name.removeprefix("SIG"))
    return [program, *as_user, *ending, "--"] if as_user or ending else []


def _answers_postgresql(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _answers_redis(url: str) -> bool:
    try:
        with Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False
