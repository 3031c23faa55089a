"""How long a federation trains, evaluations apart, as its parties' progress tells it."""

import time
from collections.abc import Callable

from splitlearn.parties import BlocksAveraged, Progress, TurnFinished, TurnStarted
from splitlearn.wire import Phase


class TrainingClock:
    """Listens to the progress of all parties of one process.

    Turns of several replicas overlap, and are counted once. Averages and checkpoints between two turns are
    counted, unless an evaluation lies there.

    Args:
        now: Seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._begun: float | None = None
        self._last = 0.0
        self._closed = 0.0

    def note(self, progress: Progress) -> None:
        """Take notice of what a party reported."""
        match progress:
            case TurnStarted(phase=Phase.TRAIN):
                if self._begun is None:
                    self._begun = self._last = self._now()
            case TurnStarted():
                self._closed, self._begun = self.seconds, None
            case TurnFinished() | BlocksAveraged():
                self._last = self._now()
            case _:
                pass

    @property
    def seconds(self) -> float:
        """Training so far."""
        return self._closed + (0.0 if self._begun is None else self._last - self._begun)
