"""One clock for all API processes: the database's.

Leases, sessions, nonces and the signs of gateways are written by one process and judged by another. Where the
database is a server, machines may share it whose own clocks are a day apart; they agree by asking it.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from backend.clock import Clock, system_clock
from backend.db.database import Database

_ASK_AGAIN_SECONDS = 30.0
_log = structlog.get_logger("backend.clock")


def shared_clock(database: Database) -> Clock:
    """Return the database's clock; this machine's own where the database is a file on it.

    Raises:
        SQLAlchemyError: The database does not answer.
    """
    if database.engine.dialect.name == "sqlite":
        return system_clock
    return DatabaseClock(lambda: _ask(database))


class DatabaseClock:
    """Tells the time by this machine's steady counter, set by a database again and again.

    A database that is away changes nothing: the counter goes on. No caller waits for an answer but the first.

    Args:
        ask: Returns the database's time.
        steady: Seconds of a counter that is never set.

    Raises:
        SQLAlchemyError: The database does not answer.
    """

    def __init__(self, ask: Callable[[], datetime], *, steady: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._steady = ask, steady
        self._lock = threading.Lock()
        self._is_asking = False
        self._base, self._asked_at = self._measure()

    def __call__(self) -> datetime:
        """Return the moment, in UTC."""
        now = self._steady()
        with self._lock:
            is_due = now - self._asked_at > _ASK_AGAIN_SECONDS and not self._is_asking
            self._is_asking = self._is_asking or is_due
            base = self._base
        if is_due:
            threading.Thread(target=self._ask_again, name="database clock", daemon=True).start()
        return datetime.fromtimestamp(base + now, tz=UTC)

    def _ask_again(self) -> None:
        try:
            base, asked_at = self._measure()
        except SQLAlchemyError as error:
            _log.warning("clock_not_set", reason=type(error).__name__, again_in_seconds=_ASK_AGAIN_SECONDS)
            base, asked_at = None, self._steady()
        with self._lock:
            self._base, self._asked_at = self._base if base is None else base, asked_at
            self._is_asking = False

    def _measure(self) -> tuple[float, float]:
        began = self._steady()
        told = self._ask().timestamp()
        ended = self._steady()
        return told - (began + ended) / 2, ended


def _ask(database: Database) -> datetime:
    with database.read() as session:
        moment = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    assert isinstance(moment, datetime)
    return moment
