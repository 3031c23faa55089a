"""Whether an error means that the database is away for a moment, rather than that we asked it nonsense."""

import sqlite3
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_CLASSES_AWAY: Final = frozenset({"08", "40", "53", "57"})
"""PostgreSQL's classes of errors: connection, rollback (deadlocks), resources (connections among them),
operator intervention."""


def is_away(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed later, with nothing changed on our side.

    PostgreSQL that cannot be reached, ended under a transaction, is starting, or has no connection left;
    SQLite that others kept locked for longer than we wait.
    """
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    cause = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        # The low byte: extended codes say why it is locked.
        return cause.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    if isinstance(cause, psycopg.OperationalError):
        return cause.sqlstate is None or cause.sqlstate[:2] in _CLASSES_AWAY
    return False


def log_failed_look(log: structlog.stdlib.BoundLogger, event: str, error: Exception) -> None:
    """Log why a thread's look at the database failed: a bug with its traceback, an absence in a line."""
    if is_away(error):
        log.warning("database_away", during=event)
    else:
        log.error(event, exc_info=error)
