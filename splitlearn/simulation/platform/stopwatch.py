"""Where the time goes until the first step: phases one after the other, without a gap."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase and its wall time."""

    name: str
    seconds: float


@dataclass
class Stopwatch:
    """Each phase ends where the next begins, so that their sum is the whole.

    Attributes:
        on_ended: Told of the name of each phase at its end.
        clock: Seconds.
        phases: What has ended.
    """

    on_ended: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.perf_counter
    phases: list[Phase] = field(default_factory=list)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def ended(self, name: str) -> None:
        """End the phase that is running; a name that came before adds to it."""
        self.on_ended(name)
        now = self.clock()
        seconds, self._since = now - self._since, now
        for index, phase in enumerate(self.phases):
            if phase.name == name:
                self.phases[index] = Phase(name, phase.seconds + seconds)
                return
        self.phases.append(Phase(name, seconds))
