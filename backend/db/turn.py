"""The right to do one kind of work, held by one process at a time, and lost with that process.

PostgreSQL: a session-level advisory lock, on a connection of its own; the server gives it back when the
connection ends, or is silent for some seconds because its process hangs. SQLite, which is one machine's: a
locked file, which the kernel lets go.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from backend.db.database import Database
from splitlearn.errors import StorageError

_LOOK_SECONDS = 1.0
_TRUST_SECONDS: Final = 5.0
"""The holder does nothing when it has not heard for so long that it still is the holder."""
_IDLE_SECONDS: Final = 10
"""The server ends a holder's connection that said nothing for so long."""
_ALONE_SECONDS = 60.0
_ALONE_PAUSE_SECONDS = 0.05
_TURNS = 0x7475726E
"""Tells these advisory locks of PostgreSQL from others of the same database."""
_log = structlog.get_logger("backend.turn")


class Lock(Protocol):
    """What one process at a time can hold."""

    def hold(self) -> bool:
        """Take it, or see that it is still held; tell whether it is. Does not wait for another holder.

        Raises:
            SQLAlchemyError, OSError: It cannot be known; it counts as lost.
        """

    def release(self) -> None:
        """Let another one have it; nothing happens if it is not held."""


class Turn:
    """Takes the lock as soon as it can, in a thread, and knows whether it is this process's turn.

    Args:
        lock: Held by one process at a time.
        on_taken: Called when it is this process's turn.
        clock: Seconds that only grow.
    """

    def __init__(
        self, lock: Lock, *, on_taken: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock, self._on_taken, self._clock = lock, on_taken, clock
        self._held_at: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turn", daemon=True)

    @property
    def is_mine(self) -> bool:
        """Whether this process may work: it held the lock a moment ago, and cannot have lost it since."""
        held_at = self._held_at
        return held_at is not None and self._clock() - held_at < _TRUST_SECONDS

    def start(self) -> None:
        """Begin; take the turn at once if nobody has it."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Let another process take over; call it when the work has stopped."""
        self._stopped.set()
        self._thread.join()
        self._held_at = None
        self._lock.release()

    def look(self) -> None:
        """Take the lock, or see that it is still held."""
        asked_at = self._clock()  # what is answered was true after this
        try:
            is_held = self._lock.hold()
        except (SQLAlchemyError, OSError) as error:
            is_held = False
            if self._held_at is not None:
                _log.warning("turn_unknown", reason=type(error).__name__)
        had, self._held_at = self._held_at, asked_at if is_held else None
        if is_held and had is None:
            _log.info("turn_taken", process=os.getpid())
            self._on_taken()
        if not is_held and had is not None:
            _log.warning("turn_lost", process=os.getpid())

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a bug in one look must not end all that follow
                self._held_at = None
                _log.exception("turn_failed")


def turn_lock(database: Database, name: str, *, folder: Path) -> Lock:
    """Return the lock of a kind of work.

    Args:
        database: The one that the processes share.
        name: Of the work.
        folder: Where SQLite's processes lock a file.
    """
    if database.engine.dialect.name == "postgresql":
        return AdvisoryLock(database.engine, name)
    return FileLock(folder / f"{name}.lock")


@contextmanager
def alone(
    database: Database, name: str, *, folder: Path, timeout_seconds: float = _ALONE_SECONDS
) -> Iterator[None]:
    """Do a short piece of work while no other process does it; wait for whoever does it now.

    Args:
        database: The one that the processes share.
        name: Of the work.
        folder: Where SQLite's processes lock a file.
        timeout_seconds: For so long at most.

    Raises:
        StorageError: Another process took longer.
    """
    lock = turn_lock(database, name, folder=folder)
    deadline = time.monotonic() + timeout_seconds
    try:
        while not lock.hold():
            if time.monotonic() > deadline:
                raise StorageError(
                    f"another process has been at work on {name!r} for {timeout_seconds:g} s; end it, or wait"
                )
            time.sleep(_ALONE_PAUSE_SECONDS)
        yield
    finally:
        lock.release()


class AdvisoryLock:
    """PostgreSQL's; a connection pooler between must not share connections by transaction.

    Args:
        engine: The database; connections are made beside its pool.
        name: Of the work.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = create_engine(
            engine.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            # A server that is no more must be noticed within the seconds that a holder trusts its lock.
            connect_args={"connect_timeout": 3, "tcp_user_timeout": 3000, "keepalives_idle": 2},
        )
        self._key = int.from_bytes(sha256(name.encode()).digest()[:4], "big", signed=True)
        self._connection: Connection | None = None
        self._is_held = False

    def hold(self) -> bool:
        """See :class:`Lock`."""
        try:
            connection = self._connection or self._connect()
            if self._is_held:
                connection.execute(text("SELECT 1"))  # the lock lives as long as the connection
            else:
                taken = text("SELECT pg_try_advisory_lock(:turns, :key)")
                self._is_held = bool(connection.scalar(taken, {"turns": _TURNS, "key": self._key}))
        except BaseException:
            self.release()
            raise
        return self._is_held

    def release(self) -> None:
        """See :class:`Lock`."""
        connection, self._connection, self._is_held = self._connection, None, False
        if connection is not None:
            connection.invalidate()  # closes it, be it whole or broken
            connection.close()

    def _connect(self) -> Connection:
        self._connection = connection = self._engine.connect()
        for setting, value in (
            ("idle_session_timeout", f"{_IDLE_SECONDS}s"),  # since PostgreSQL 14
            ("tcp_keepalives_idle", "2"),
            ("tcp_keepalives_interval", "1"),
            ("tcp_keepalives_count", "3"),
        ):
            known = text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :setting")
            connection.execute(known, {"value": value, "setting": setting})
        return connection


class FileLock:
    """A file locked by ``flock``; its folder must be on this machine's own disk.

    Args:
        path: The file, which is made and stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def hold(self) -> bool:
        """See :class:`Lock`."""
        if self._descriptor is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the root may come to lie there
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """See :class:`Lock`."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
