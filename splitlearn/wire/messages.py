"""The messages of the conversation, as dataclasses: the closed list of what a party may say.

Every field's annotation carries its kind, what it is and what it reveals (:class:`Listed`); from these
come the encoding (``encoding``), and the page ``docs/what-leaves.md`` (``catalogue``). Axes: N valid
tokens of a micro-batch, rows one after another in the batch's order without pads; D hidden size.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from splitlearn.wire.envelope import Direction
from splitlearn.wire.generation_messages import (
    CachedHidden,
    CacheEnd,
    CacheRefused,
    Decode,
    Prefill,
)
from splitlearn.wire.schema import (
    F64,
    FLAG,
    LIST_F32,
    LIST_U32,
    U8,
    U32,
    U64,
    Array,
    Choice,
    ChoiceSet,
    Listed,
    Optional,
    Record,
    Tensor,
    listed_fields,
)
from splitlearn.wire.sum_messages import (
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
)
from splitlearn.wire.value import Value


class Phase(IntEnum):
    """What a turn is for."""

    TRAIN = 1
    EVAL = 2
    GENERATE = 3


class PaddingSide(IntEnum):
    """On which side the short rows of a batch are filled up."""

    LEFT = 1
    RIGHT = 2


class GoodbyeReason(IntEnum):
    """Why a silo leaves."""

    FINISHED = 1
    CANCELLED = 2
    FAILED = 3


class JobStatus(IntEnum):
    """How a job ended."""

    COMPLETED = 1
    CANCELLED = 2
    FAILED = 3


class RefusalCode(IntEnum):
    """Why the trunk refuses what a silo asked for. A code and no text: nothing detailed leaves."""

    UNSERVED_PHASE = 1
    WRONG_ROUND = 2
    TOO_LARGE = 3
    INTERNAL = 4


_COUNT = "a place in the job's public plan"
_LOSS = "how well the model predicts this silo's labels, on average; over steps, whether a text is repeated"
_STATES = (
    "with public base weights the tokens themselves can be recovered from it, nearly all of them "
    "(threat model); the order of rows and tokens"
)
_GRADIENT = (
    "much of the labels can be recovered from it; rows that the loss ignores are exactly zero and show "
    "where prompt and answer meet"
)
_RETURNED = "to the silo, by its answers, the trained trunk and what other silos' texts left in it"
_TOTAL = "how much text has labels, not which; to a silo, where others take part, the sum over all"
_NORM = "how far a step moved this block: one number per tensor and step"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Outcome(Value):
    """What a step came to: enough to clip by the global norm, or to skip the step, on both sides alike.

    A list is empty where the sender does not hold the segment or the segment is frozen.

    Attributes:
        norms_bottom: fp32 L2 norm of each trainable tensor's gradient, in the whole model's order.
        norms_trunk: The same of the trunk.
        norms_top: The same of the top.
        finite: Whether every gradient of the step is finite.
        num_tokens: Label tokens of the step.
    """

    norms_bottom: Annotated[
        tuple[float, ...],
        Listed(LIST_F32, "fp32 L2 norm of the gradient of each trainable tensor of the bottom", _NORM),
    ]
    norms_trunk: Annotated[
        tuple[float, ...],
        Listed(LIST_F32, "the same of the trunk", "how far the silos' batches together moved the trunk"),
    ]
    norms_top: Annotated[tuple[float, ...], Listed(LIST_F32, "the same of the top", _NORM)]
    finite: Annotated[bool, Listed(FLAG, "whether every gradient is finite", "that a step failed")]
    num_tokens: Annotated[int, Listed(U32, "label tokens of the step", _TOTAL)]


_OUTCOME = Optional(Record(Outcome, listed_fields(Outcome)))
_ROWS_ND = Tensor("ND")
_PHASE = Listed(Choice(Phase), "what the turn is for", _COUNT)
_MICRO_BATCH = Listed(U32, "which micro-batch of the step, from 0", _COUNT)
_ROUND = Listed(U32, "the round, from 1", _COUNT)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ready(Value):
    """The silo is loaded and waits. ``last_round``: last round it has a checkpoint of, 0 for none."""

    last_round: Annotated[int, Listed(U32, "last round that the silo has a checkpoint of", _COUNT)]
    served: Annotated[
        frozenset[Phase], Listed(ChoiceSet(Phase), "phases that the silo serves", "the silo's version")
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TurnRequest(Value):
    """The silo asks for a phase by itself."""

    phase: Annotated[Phase, _PHASE]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Activations(Value):
    """What the bottom made of one micro-batch: fp32 [N, D], N the sum of ``lengths``.

    ``outcome`` is that of the silo's previous step, where the trunk still waits for it.
    """

    phase: Annotated[Phase, _PHASE]
    micro_batch: Annotated[int, _MICRO_BATCH]
    num_micro_batches: Annotated[int, Listed(U32, "micro-batches of the step", _COUNT)]
    lengths: Annotated[
        tuple[int, ...], Listed(LIST_U32, "valid tokens of each row, in order", "how long each text is")
    ]
    padding_side: Annotated[PaddingSide, Listed(Choice(PaddingSide), "where short rows are filled", _COUNT)]
    num_label_tokens: Annotated[
        int, Listed(U32, "label tokens of the whole step", "how much text has labels, not which")
    ]
    outcome: Annotated[Outcome | None, Listed(_OUTCOME, "outcome of the previous step", "see Outcome")]
    hidden: Annotated[
        Array, Listed(_ROWS_ND, "hidden states after the bottom, valid tokens only, no pads", _STATES)
    ]

    def inconsistency(self) -> str | None:
        """Say what does not fit together, or None."""
        if sum(self.lengths) != len(self.hidden):
            return f"lengths sum to {sum(self.lengths)}, hidden has {len(self.hidden)} rows"
        if self.micro_batch >= self.num_micro_batches:
            return f"micro_batch {self.micro_batch} is not among {self.num_micro_batches}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GradHidden(Value):
    """Gradient of the micro-batch's loss with respect to the trunk's output: fp32 [N, D]."""

    micro_batch: Annotated[int, _MICRO_BATCH]
    loss_sum: Annotated[
        float, Listed(F64, "loss summed over the micro-batch's label tokens, or 0: withheld", _LOSS)
    ]
    grad: Annotated[Array, Listed(_ROWS_ND, "gradient of the loss by the trunk's output", _GRADIENT)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TurnEnd(Value):
    """All steps of the turn are done; in ``eval`` the sums run over the silo's held-out rows."""

    outcome: Annotated[Outcome | None, Listed(_OUTCOME, "outcome of the last step", "see Outcome")]
    loss_sum: Annotated[float, Listed(F64, "loss summed over the turn's label tokens, or 0: withheld", _LOSS)]
    num_tokens: Annotated[int, Listed(U64, "label tokens of the turn", "how much text has labels, not which")]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RoundSaved(Value):
    """The silo's checkpoint of the round is on disk."""

    round: Annotated[int, _ROUND]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Goodbye(Value):
    """The silo leaves."""

    reason: Annotated[
        GoodbyeReason, Listed(Choice(GoodbyeReason), "why the silo leaves", "whether it failed, not how")
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TurnStart(Value):
    """The silo's turn: do ``num_steps`` steps from global step ``first_step`` on."""

    phase: Annotated[Phase, _PHASE]
    round: Annotated[int, _ROUND]
    first_step: Annotated[int, Listed(U32, "global step that the turn begins with", _COUNT)]
    num_steps: Annotated[int, Listed(U32, "steps of the turn", _COUNT)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Hidden(Value):
    """What the trunk made of one micro-batch: fp32 [N, D], rows as in its activations.

    The silo multiplies the micro-batch's loss by 2 to ``loss_scale_exponent``, and answers with the gradient
    of that; 0 but for training in fp16.
    """

    micro_batch: Annotated[int, _MICRO_BATCH]
    loss_scale_exponent: Annotated[
        int,
        Listed(
            U8, "power of two that the silo multiplies its loss by", "that some step's gradients overflowed"
        ),
    ] = 0
    hidden: Annotated[Array, Listed(_ROWS_ND, "hidden states after the trunk", _RETURNED)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GradActivations(Value):
    """Gradient with respect to the activations: fp32 [N, D]; None where the bottom is frozen.

    ``outcome`` is that of the step, with its last micro-batch only.
    """

    micro_batch: Annotated[int, _MICRO_BATCH]
    outcome: Annotated[Outcome | None, Listed(_OUTCOME, "outcome of the step", "see Outcome")]
    grad: Annotated[
        Array | None,
        Listed(Optional(_ROWS_ND), "gradient of the loss by the activations", _RETURNED),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StepVoid(Value):
    """A gradient somewhere is not finite: undo the step and send the next activations again."""

    step: Annotated[int, Listed(U32, "the global step that is skipped", "that some silo's step failed")]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TurnResult(Value):
    """Answers TurnEnd."""

    voided: Annotated[
        bool, Listed(FLAG, "whether the turn's last step is skipped", "that some silo's step failed")
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RoundEnd(Value):
    """The round is over: the silo saves its checkpoint and answers RoundSaved.

    Round 0 is the job's begin, of which no checkpoint is saved: it ends where it was evaluated and may be the
    best. ``is_best``: no evaluated round before it had a lower loss; the silo keeps its blocks as they are.
    """

    round: Annotated[int, _ROUND]
    is_best: Annotated[
        bool,
        Listed(FLAG, "whether the round is the best so far", "how the loss over all silos went"),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class JobEnd(Value):
    """The job is over. ``last_round``: the last one that was trained; 0 for all of the plan, or none."""

    status: Annotated[JobStatus, Listed(Choice(JobStatus), "how the job ended", "whether it failed, not how")]
    last_round: Annotated[
        int, Listed(U32, "last round that was trained, 0 for all", "whether the loss over all silos improved")
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Refusal(Value):
    """The trunk does not do what the silo asked for."""

    code: Annotated[RefusalCode, Listed(Choice(RefusalCode), "why", "a limit or version of the trunk")]


SiloMessage = (
    Ready
    | TurnRequest
    | Activations
    | GradHidden
    | TurnEnd
    | RoundSaved
    | Goodbye
    | SumKey
    | SumConsent
    | SumPart
    | SumDone
    | Prefill
    | Decode
    | CacheEnd
)
TrunkMessage = (
    TurnStart
    | Hidden
    | GradActivations
    | StepVoid
    | TurnResult
    | RoundEnd
    | JobEnd
    | Refusal
    | SumStart
    | SumRoster
    | SumConsents
    | SumTotal
    | SumEnd
    | CachedHidden
    | CacheRefused
)
Message = SiloMessage | TrunkMessage


@dataclass(frozen=True, slots=True)
class MessageType:
    """One line of the closed list: the number on the wire, the class, who may send it, its fields."""

    number: int
    cls: type[Message]
    direction: Direction
    fields: dict[str, Listed]


def _listed_as(number: int, cls: type[Message], direction: Direction) -> MessageType:
    return MessageType(number=number, cls=cls, direction=direction, fields=listed_fields(cls))


CLOSED_LIST: Final = (
    _listed_as(1, Ready, Direction.SILO_TO_TRUNK),
    _listed_as(2, TurnRequest, Direction.SILO_TO_TRUNK),
    _listed_as(3, Activations, Direction.SILO_TO_TRUNK),
    _listed_as(4, GradHidden, Direction.SILO_TO_TRUNK),
    _listed_as(5, TurnEnd, Direction.SILO_TO_TRUNK),
    _listed_as(6, RoundSaved, Direction.SILO_TO_TRUNK),
    _listed_as(7, Goodbye, Direction.SILO_TO_TRUNK),
    _listed_as(8, SumKey, Direction.SILO_TO_TRUNK),
    _listed_as(9, SumConsent, Direction.SILO_TO_TRUNK),
    _listed_as(10, SumPart, Direction.SILO_TO_TRUNK),
    _listed_as(11, SumDone, Direction.SILO_TO_TRUNK),
    _listed_as(12, Prefill, Direction.SILO_TO_TRUNK),
    _listed_as(13, Decode, Direction.SILO_TO_TRUNK),
    _listed_as(14, CacheEnd, Direction.SILO_TO_TRUNK),
    _listed_as(65, TurnStart, Direction.TRUNK_TO_SILO),
    _listed_as(66, Hidden, Direction.TRUNK_TO_SILO),
    _listed_as(67, GradActivations, Direction.TRUNK_TO_SILO),
    _listed_as(68, StepVoid, Direction.TRUNK_TO_SILO),
    _listed_as(69, TurnResult, Direction.TRUNK_TO_SILO),
    _listed_as(70, RoundEnd, Direction.TRUNK_TO_SILO),
    _listed_as(71, JobEnd, Direction.TRUNK_TO_SILO),
    _listed_as(72, Refusal, Direction.TRUNK_TO_SILO),
    _listed_as(73, SumStart, Direction.TRUNK_TO_SILO),
    _listed_as(74, SumRoster, Direction.TRUNK_TO_SILO),
    _listed_as(75, SumConsents, Direction.TRUNK_TO_SILO),
    _listed_as(76, SumTotal, Direction.TRUNK_TO_SILO),
    _listed_as(77, SumEnd, Direction.TRUNK_TO_SILO),
    _listed_as(78, CachedHidden, Direction.TRUNK_TO_SILO),
    _listed_as(79, CacheRefused, Direction.TRUNK_TO_SILO),
)
"""Everything that a party may say. Nothing else can be encoded or decoded."""
