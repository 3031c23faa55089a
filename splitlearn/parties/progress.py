"""What a party tells the program that runs it while the job goes on."""

from collections.abc import Callable
from dataclasses import dataclass

from splitlearn.tasks import Score
from splitlearn.wire import Phase


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """A silo's turn began."""

    silo: str
    phase: Phase
    round: int
    first_step: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """A silo has finished one training step.

    Attributes:
        silo: The silo.
        round: Round, from 1.
        step: Global step, from 0.
        loss: Mean loss over the step's label tokens in nats; NaN when there were none.
        num_label_tokens: Label tokens of the step.
        num_valid_tokens: Non-pad tokens of the step.
        applied: Whether the step was taken; not, when a gradient was not finite.
        seconds: From the step's first computation to its last at this silo.
        compute_seconds: Of these, spent computing here; 0 where nobody measured. The rest went by on the
            wire, at the trunk, and waiting for other silos.
        num_rows: Rows of the step.
    """

    silo: str
    round: int
    step: int
    loss: float
    num_label_tokens: int
    num_valid_tokens: int
    applied: bool
    seconds: float
    compute_seconds: float = 0.0
    num_rows: int = 1


@dataclass(frozen=True, slots=True)
class TrunkStepped:
    """The trunk has answered every silo's gradients of one training step.

    Attributes:
        round: Round, from 1.
        step: Global step, from 0.
        num_label_tokens: Label tokens of the step over all silos.
        seconds: Since the step before was answered, or the turn began.
        compute_seconds: Of these, spent computing here; the optimiser's part is counted with the next step.
    """

    round: int
    step: int
    num_label_tokens: int
    seconds: float
    compute_seconds: float


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The trunk has finished a training turn of some silos.

    Attributes:
        silos: Who took part.
        round: Round, from 1.
        num_steps: Steps of the turn.
        seconds: From the word to begin until the last silo had its result.
    """

    silos: tuple[str, ...]
    round: int
    num_steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A silo has scored its held-out rows.

    Attributes:
        silo: The silo.
        round: Round after which it was done.
        loss: Token-weighted mean loss over the right answers' label tokens, in nats.
        num_tokens: Those tokens.
        accuracy: Share of rows whose right answer scored best; None outside ``choice``.
        scores: What else there is to say of a choice.
        num_rows: Held-out rows that were scored.
        withheld_below: The silo withholds numbers of fewer rows than this, and these are fewer: loss and
            tokens are not known. 0 where they are.
    """

    silo: str
    round: int
    loss: float
    num_tokens: int
    accuracy: float | None
    scores: tuple[Score, ...] = ()
    num_rows: int = 1
    withheld_below: int = 0


@dataclass(frozen=True, slots=True)
class BlocksAveraged:
    """The silos' blocks were averaged by a secure sum, or the sum was given up.

    Attributes:
        silos: Who took part.
        round: Round, from 1.
        step: Steps of each silo in the round before.
        averaged: Whether all have the average now; not, where nobody had learned anything.
        seconds: From the first word of the sum to the last.
    """

    silos: tuple[str, ...]
    round: int
    step: int
    averaged: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """Every party has its checkpoint of the round.

    Attributes:
        round: Round, from 1.
        replica: Whose parties; None in a job without replicas.
        best_round: The one that the result would be of, were this the last; None where the specification does
            not ask for the best, or none is known.
    """

    round: int
    replica: int | None = None
    best_round: int | None = None


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The job is over and every silo has said goodbye.

    Attributes:
        replica: Whose silos; None in a job without replicas.
    """

    replica: int | None = None


Progress = (
    TurnStarted
    | StepDone
    | TrunkStepped
    | TurnFinished
    | BlocksAveraged
    | Evaluated
    | RoundFinished
    | JobFinished
)
OnProgress = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Tell nobody."""
