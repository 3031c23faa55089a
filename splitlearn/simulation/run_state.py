"""Where every silo stands, followed from the parties' reports; what a live display shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from splitlearn.parties import Evaluated, JobFinished, Progress, RoundFinished, StepDone, TurnStarted
from splitlearn.spec import JobSpec
from splitlearn.wire import Phase

_SMOOTHING = 0.2  # share of the newest step in the speed that is shown


@dataclass
class SiloState:
    """One silo's row in the display.

    Attributes:
        name: The silo.
        state: ``waiting``, ``training``, ``evaluating`` or ``done``.
        round: Round that it is in, from 1; 0 before the first.
        step: Steps that it has taken.
        loss: Mean loss of its last step, in nats; NaN before the first.
        tokens_per_second: Smoothed, valid tokens over the time from a step's first computation to its last.
        evaluation: Its last evaluation.
    """

    name: str
    state: str = "waiting"
    round: int = 0
    step: int = 0
    loss: float = math.nan
    tokens_per_second: float = math.nan
    evaluation: Evaluated | None = None


@dataclass
class RunState:
    """The whole run.

    Args:
        spec: The job.
        last_round: Rounds that an earlier, interrupted run has done.
    """

    spec: JobSpec
    last_round: int = 0
    silos: dict[str, SiloState] = field(init=False)

    def __post_init__(self) -> None:
        step = self.last_round * self.spec.steps_per_round
        self.silos = {
            silo.name: SiloState(silo.name, round=self.last_round, step=step) for silo in self.spec.silos
        }

    @property
    def steps_per_silo(self) -> int:
        """Steps that each silo takes in the whole job."""
        return self.spec.rounds * self.spec.steps_per_round

    @property
    def done(self) -> int:
        """Steps taken, all silos together."""
        return sum(silo.step for silo in self.silos.values())

    @property
    def total(self) -> int:
        """Steps of the whole job, all silos together."""
        return self.steps_per_silo * len(self.silos)

    def take(self, progress: Progress) -> None:
        """Follow one report."""
        match progress:
            case TurnStarted():
                silo = self.silos[progress.silo]
                silo.state = "training" if progress.phase is Phase.TRAIN else "evaluating"
                silo.round = max(silo.round, progress.round)
            case StepDone():
                self._step(self.silos[progress.silo], progress)
            case Evaluated():
                self.silos[progress.silo].evaluation = progress
                self.silos[progress.silo].state = "waiting"
            case RoundFinished():
                self._rest("waiting", progress.replica)
            case JobFinished():
                self._rest("done", progress.replica)
            case _:
                pass

    def _step(self, silo: SiloState, done: StepDone) -> None:
        silo.step += 1
        silo.round = max(silo.round, done.round)  # a silo's reports are told apart from its steps' numbers
        if not math.isnan(done.loss):
            silo.loss = done.loss
        speed = done.num_valid_tokens / max(done.seconds, 1e-9)
        earlier = speed if math.isnan(silo.tokens_per_second) else silo.tokens_per_second
        silo.tokens_per_second = earlier + _SMOOTHING * (speed - earlier)
        if self.spec.takes_turns and self._ends_turn(silo.step):
            silo.state = "waiting"

    def _ends_turn(self, step: int) -> bool:
        turn_steps = self.spec.turn_steps or self.spec.steps_per_round
        in_round = step % self.spec.steps_per_round
        return in_round == 0 or in_round % turn_steps == 0

    def _rest(self, state: str, replica: int | None) -> None:
        names = self.silos if replica is None else self.spec.shares[replica]
        for name in names:
            self.silos[name].state = state


def mean(values: Sequence[float]) -> float:
    """Return the mean of those values that are numbers; NaN where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
