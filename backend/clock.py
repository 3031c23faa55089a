"""The server's clock: the only one that decides anything."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the current moment, in UTC."""
    return datetime.now(tz=UTC)
