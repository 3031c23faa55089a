"""The control plane's time, as it tells it with standings: tickets end by that, not by the clock here."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from backend.clock import Clock, system_clock


class ToldClock:
    """Goes on from the moment that was told last; this machine's own clock before the first.

    Args:
        own: This machine's clock.
        steady: Seconds of a counter that is never set.
    """

    def __init__(self, *, own: Clock = system_clock, steady: Callable[[], float] = time.monotonic) -> None:
        self._own, self._steady = own, steady
        self._told: tuple[datetime, float] | None = None

    def tell(self, moment: datetime) -> None:
        """Take over what the control plane says that the time is."""
        self._told = moment.astimezone(UTC), self._steady()

    def __call__(self) -> datetime:
        """Return the moment, in UTC."""
        if self._told is None:
            return self._own()
        moment, told_at = self._told
        return moment + timedelta(seconds=self._steady() - told_at)
