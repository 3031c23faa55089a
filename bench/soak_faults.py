"""Faults drawn at random, and whoever starts again what died."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from bench.stage import Stage
from splitlearn.errors import ProcessError

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 3.0, 12.0
_LONGEST_FREEZE_SECONDS = 6.0
_LONGEST_ABSENCE_SECONDS = 3.0
_PATIENCE_SECONDS = 240.0
_EARLY_SHARE = 0.25
"""Of the faults: they strike before a round was committed since the one before."""
_AT_ONCE = (
    ("api", "gateway"),
    ("database", "broker"),
    ("api", "database", "broker"),
    ("gateway", "worker-1"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One that was survived.

    Attributes:
        kind: What was done, to what.
        seconds: From its end (all is started or thawed) to the trunk's next step.
    """

    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the platform is, as the control plane tells.

    Attributes:
        job: The job under way.
        rounds: That it has committed.
    """

    job: str
    rounds: int


class Weather:
    """Strikes, looks after what fell, and notes what was survived.

    Most faults wait for a committed round since the one before: what dies takes up to a round with it, and on
    a slow machine faults by the clock alone would come faster than rounds, so that no job could ever end. The
    others strike earlier, in the middle of what follows a fault.

    Args:
        stage: The platform.
        chance: Draws.
    """

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self._stage, self._chance = stage, chance
        self.survived: list[Fault] = []
        self._frozen: tuple[str, ...] = ()
        self._down: tuple[str, ...] = ()
        self._over_at = 0.0
        self._struck: str | None = None
        self._ended_at = 0.0
        self._steps = 0
        self._due_at = monotonic() + self._pause()
        self._seen: Progress | None = None
        self._struck_at: Progress | None = None
        self._is_early = True

    @property
    def is_calm(self) -> bool:
        """Whether everything was started or thawed again."""
        return not (self._frozen or self._down)

    @property
    def is_due(self) -> bool:
        """Whether the next fault is due: the last one was survived, and what it waits for has come."""
        is_over = self.is_calm and self._struck is None and monotonic() > self._due_at
        return is_over and (self._is_early or self._seen != self._struck_at)

    def see(self, progress: Progress) -> None:
        """Note how far the platform is."""
        self._seen = progress

    def strike(self) -> None:
        """Draw a fault and begin it; what is down or frozen comes back in :meth:`look_after`."""
        stage, chance = self._stage, self._chance
        self._struck_at, self._is_early = self._seen, chance.random() < _EARLY_SHARE
        one = [*("api", "gateway", "broker", "database", *stage.workers)]
        one += [f"{kind}-{silo}" for kind in ("agent", "child") for silo in stage.silos]
        way = chance.choices(("kill", "kill at once", "freeze"), weights=(6, 1, 2))[0]
        if way == "freeze":
            parts: tuple[str, ...] = (chance.choice([part for part in one if _can_freeze(part)]),)
            self._frozen = parts
            self._over_at = monotonic() + chance.uniform(0.5, _LONGEST_FREEZE_SECONDS)
            for part in parts:
                stage.freeze(part)
        else:
            parts = chance.choice(_AT_ONCE) if way == "kill at once" else (chance.choice(one),)
            for part in parts:
                stage.kill(part)
            self._down = tuple(part for part in parts if not part.startswith("child-"))
            self._over_at = monotonic() + chance.uniform(0.0, _LONGEST_ABSENCE_SECONDS)
        self._struck = f"{way.removesuffix(' at once')} {', '.join(map(_role, parts))}"

    def look_after(self) -> None:
        """End a fault whose time is over, start what died by itself, and see whether it was survived.

        Raises:
            ProcessError: No step was trained for four minutes after a fault.
        """
        if not self.is_calm and monotonic() > self._over_at:
            self.calm()
        for part in self._dead():
            self._stage.start(part, waits=False)
        if self._struck is not None and self.is_calm:
            self._look_for_steps(self._struck)

    def calm(self) -> None:
        """Start and thaw everything now."""
        if self.is_calm:
            return
        down, frozen, self._down, self._frozen = self._down, self._frozen, (), ()
        for part in frozen:
            self._stage.thaw(part)
        for part in _in_order(down):
            self._stage.start(part)
        self._ended_at, self._steps = monotonic(), self._stage.steps_done()

    def _look_for_steps(self, struck: str) -> None:
        now = monotonic()
        if self._ended_at == 0.0:
            self._ended_at, self._steps = now, self._stage.steps_done()
        if now - self._ended_at > _PATIENCE_SECONDS:
            raise ProcessError(
                f"no step within {_PATIENCE_SECONDS:g} s after: {struck}; logs in {self._stage.folder}/logs"
            )
        if self._stage.steps_done() > self._steps:
            self.survived.append(Fault(struck, now - self._ended_at))
            self._struck, self._ended_at = None, 0.0
            self._due_at = now + self._pause()

    def _dead(self) -> Sequence[str]:
        parts = ("api", "gateway", *self._stage.workers, *(f"agent-{silo}" for silo in self._stage.silos))
        return [part for part in parts if part not in self._down and not self._stage.is_running(part)]

    def _pause(self) -> float:
        return self._chance.uniform(_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)


def _in_order(parts: Sequence[str]) -> list[str]:
    """Servers before those who need them at their start."""
    order = ("database", "broker", "api", "gateway")
    return sorted(parts, key=lambda part: order.index(part) if part in order else len(order))


def _can_freeze(part: str) -> bool:
    return part in {"api", "gateway", "worker-1"} or part.startswith("agent-")


def _role(part: str) -> str:
    name, _, rest = part.partition("-")
    return name if rest else part
