"""When a process that died is started again. Pure: time is passed in."""

from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SOUND_SECONDS = 60.0
"""After so long without dying, the next death counts as the first."""


@dataclass
class Restarts:
    """One process's deaths so far.

    Attributes:
        started_at: When it was last started.
        due_at: When it is to be started again; None while it runs.
    """

    started_at: float
    due_at: float | None = None
    _pause_seconds: float = FIRST_PAUSE_SECONDS

    def died(self, now: float) -> float:
        """Note a death; returns the pause before the next start."""
        if now - self.started_at >= SOUND_SECONDS:
            self._pause_seconds = FIRST_PAUSE_SECONDS
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self.due_at = now + pause
        return pause

    def is_due(self, now: float) -> bool:
        """Whether it is to be started now."""
        return self.due_at is not None and now >= self.due_at

    def started(self, now: float) -> None:
        """Note a start."""
        self.started_at, self.due_at = now, None
