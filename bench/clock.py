"""When each step of a process began."""

import itertools
import time
from collections.abc import Callable

from bench.documents import Measured, Task


def _nothing() -> int:
    return 0


class StepClock:
    """Notes the start of every step.

    Args:
        task: How many steps are measured.
        count_bytes: Returns the bytes that have crossed the socket so far.
    """

    def __init__(self, task: Task, *, count_bytes: Callable[[], int] = _nothing) -> None:
        self._first, self._last = task.warmup, task.warmup + task.steps
        self._count_bytes = count_bytes
        self._seconds: list[float] = []
        self._cpu_seconds: list[float] = []
        self._bytes: list[int] = []

    def step_begins(self) -> None:
        """Note that the next step begins now."""
        self._seconds.append(time.perf_counter())
        self._cpu_seconds.append(time.process_time())
        self._bytes.append(self._count_bytes())

    @property
    def cpu_seconds(self) -> float:
        """User and system time of this process per measured step."""
        return (self._cpu_seconds[self._last] - self._cpu_seconds[self._first]) / (self._last - self._first)

    def measured(self, losses: list[float]) -> Measured:
        """Return what is reported of the measured steps."""
        starts = self._seconds[self._first : self._last + 1]
        return Measured(
            step_seconds=tuple(end - start for start, end in itertools.pairwise(starts)),
            cpu_seconds=self.cpu_seconds,
            bytes_per_step=(self._bytes[self._last] - self._bytes[self._first]) / (self._last - self._first),
            losses=tuple(losses),
        )
