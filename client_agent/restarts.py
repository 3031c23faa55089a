"""How often and how soon a job's process is started again. Decides; waits for nothing."""

from dataclasses import dataclass

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_GROWTH = 3.0


@dataclass
class Restarts:
    """Counts deaths in a row; a process that lived long enough, or finished a round, begins the count anew.

    Attributes:
        max_deaths: So many in a row are too many.
        healthy_seconds: A life that counts as none of a row.
    """

    max_deaths: int = 5
    healthy_seconds: float = 300.0
    _deaths: int = 0

    def died(self, *, after_seconds: float, got_on: bool = False) -> float | None:
        """Return how long to wait before the next start; None when it should not be started again.

        Args:
            after_seconds: How long it lived.
            got_on: Whether it saved a round that was not saved before.
        """
        is_first = got_on or after_seconds >= self.healthy_seconds
        self._deaths = 1 if is_first else self._deaths + 1
        if self._deaths >= self.max_deaths:
            return None
        return min(_FIRST_PAUSE_SECONDS * _GROWTH ** (self._deaths - 1), _LONGEST_PAUSE_SECONDS)
