"""One engine and its two kinds of transaction: read-only, and writing.

A transaction begins and ends inside one function call, in one thread. A request that waited for a
second thread while holding SQLite's only write lock could wait for requests that wait for it.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from splitlearn.errors import StorageError

_READ_ONLY: Final = "trunkline_read_only"
_WAKES = "trunkline_wakes_listeners"
DEFAULT_BUSY_TIMEOUT_SECONDS = 15.0
_KEPT_CONNECTIONS, _MAX_CONNECTIONS = 20, 40
"""To PostgreSQL: as many as there are threads for requests. One beyond those that are kept serves once."""


class KeptError(Exception):
    """Base of errors after which what the transaction wrote is kept: counters, audit rows."""


class Database:
    """SQLite or PostgreSQL behind one face.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql://user@host/name``.
        busy_timeout_seconds: How long a SQLite writer waits for another one.

    Raises:
        StorageError: The URL is none, or names another kind of database.
    """

    def __init__(self, url: str, *, busy_timeout_seconds: float = DEFAULT_BUSY_TIMEOUT_SECONDS) -> None:
        self.engine = _make_engine(url, busy_timeout_seconds=busy_timeout_seconds)
        self._on_commit: list[Callable[[], None]] = []
        self._is_disposed = False
        event.listen(self.engine, "checkin", self._keep_none_once_disposed)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call a listener after every writing transaction that was committed; it must not block."""
        self._on_commit.append(listener)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction in which the database itself refuses to write."""
        with (
            self.engine.connect().execution_options(**{_READ_ONLY: True}) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session

    @contextmanager
    def write(self, *, quietly: bool = False) -> Iterator[Session]:
        """Open a transaction that is committed at the end, and rolled back by any error.

        A :class:`KeptError` is the exception: what was written before it is committed.

        Args:
            quietly: Listeners are called only if :func:`wake_listeners` was. For what comes every second from
                every party, and what nobody waits for.
        """
        with Session(self.engine, expire_on_commit=False) as session:
            try:
                yield session
            except KeptError:
                session.commit()
                raise
            session.commit()
        if quietly and _WAKES not in session.info:
            return
        for listener in self._on_commit:
            listener()

    def dispose(self) -> None:
        """Close all connections: those in use, and any made later, when they are given back."""
        self._is_disposed = True
        self.engine.dispose()

    def _keep_none_once_disposed(
        self, connection: DBAPIConnection | None, record: ConnectionPoolEntry
    ) -> None:
        if self._is_disposed and connection is not None:
            record.invalidate()


def wake_listeners(session: Session) -> None:
    """Have listeners called after this transaction, even if it was begun quietly."""
    session.info[_WAKES] = True


def _make_engine(url: str, *, busy_timeout_seconds: float) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError("TRUNKLINE_DATABASE_URL is no URL of a database") from error
    backend = parsed.get_backend_name()
    # hide_parameters: an error must not write token digests or password hashes into the log
    if backend == "sqlite":
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": busy_timeout_seconds})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=_KEPT_CONNECTIONS,
            max_overflow=_MAX_CONNECTIONS - _KEPT_CONNECTIONS,
        )
        event.listen(engine, "connect", _prepare_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    raise StorageError(f"{backend!r} databases are not served; use sqlite:///... or postgresql://...")


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
    # A deferred transaction that writes after reading fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _prepare_postgresql(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # PostgreSQL's own figure is that of a disk with arms, for which it would rather read a whole table than
    # some hundred rows by their index. What is asked for here lies in memory, or on a disk without arms.
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET random_page_cost = 1.1")
    connection.commit()


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ_ONLY, False):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
