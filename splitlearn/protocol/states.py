"""The conversation as tables: which message moves which side from which state to which.

A message that has no entry for the current state is illegal. Sent by the peer, it is the peer's
fault (:class:`IllegalMessageError`); sent by us, it is a bug of ours (LocalProtocolError).
"""

from collections.abc import Mapping
from enum import StrEnum

from splitlearn.wire import (
    Activations,
    CachedHidden,
    CacheEnd,
    CacheRefused,
    Decode,
    Goodbye,
    GradActivations,
    GradHidden,
    Hidden,
    JobEnd,
    Message,
    Phase,
    Prefill,
    Ready,
    Refusal,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)


class State(StrEnum):
    """Where a conversation stands; both sides use the same words."""

    JOINING = "joining"
    """The silo is loading its blocks."""
    WAITING = "waiting"
    """Between turns."""
    TRAINING = "training"
    """Inside a training turn."""
    EVALUATING = "evaluating"
    """Inside an evaluation turn."""
    GENERATING = "generating"
    """Inside a generating turn; which cache awaits what is counted by the ledger."""
    CLOSING_TURN = "closing-turn"
    """The silo has reported the end of its turn."""
    SUMMING = "summing"
    """The silos average their blocks; the order inside is that of ``splitlearn.privacy``."""
    CLOSING_SUM = "closing-sum"
    """The trunk has ended the sum; the silo takes the average over."""
    SAVING = "saving"
    """The silo is writing its checkpoint of the round."""
    ENDED = "ended"
    """The trunk has ended the job."""
    OVER = "over"
    """Goodbye was said: nothing follows."""


Table = Mapping[tuple[State, type[Message]], State]

_PHASE_STATES = {
    Phase.TRAIN: State.TRAINING,
    Phase.EVAL: State.EVALUATING,
    Phase.GENERATE: State.GENERATING,
}

_SHARED: dict[tuple[State, type[Message]], State] = {
    (State.JOINING, Ready): State.WAITING,
    (State.WAITING, TurnRequest): State.WAITING,
    (State.WAITING, Refusal): State.WAITING,
    # A refusal may cross the start of a turn on its way.
    (State.TRAINING, Refusal): State.TRAINING,
    (State.EVALUATING, Refusal): State.EVALUATING,
    (State.GENERATING, Refusal): State.GENERATING,
    (State.SAVING, Refusal): State.SAVING,
    (State.SUMMING, Refusal): State.SUMMING,
    (State.CLOSING_SUM, Refusal): State.CLOSING_SUM,
    (State.TRAINING, Activations): State.TRAINING,
    (State.TRAINING, Hidden): State.TRAINING,
    (State.TRAINING, GradHidden): State.TRAINING,
    (State.TRAINING, GradActivations): State.TRAINING,
    (State.TRAINING, StepVoid): State.TRAINING,
    (State.TRAINING, TurnEnd): State.CLOSING_TURN,
    (State.EVALUATING, Activations): State.EVALUATING,
    (State.EVALUATING, Hidden): State.EVALUATING,
    (State.EVALUATING, TurnEnd): State.CLOSING_TURN,
    **{
        (State.GENERATING, message): State.GENERATING
        for message in (Prefill, Decode, CacheEnd, CachedHidden, CacheRefused)
    },
    (State.GENERATING, TurnEnd): State.CLOSING_TURN,
    (State.CLOSING_TURN, TurnResult): State.WAITING,
    (State.WAITING, SumStart): State.SUMMING,
    **{
        (State.SUMMING, message): State.SUMMING
        for message in (SumKey, SumRoster, SumConsent, SumConsents, SumPart, SumTotal)
    },
    (State.SUMMING, SumEnd): State.CLOSING_SUM,
    (State.CLOSING_SUM, SumDone): State.WAITING,
    (State.WAITING, RoundEnd): State.SAVING,
    (State.SAVING, RoundSaved): State.WAITING,
}
_ENDABLE = (
    State.JOINING,
    State.WAITING,
    State.TRAINING,
    State.EVALUATING,
    State.GENERATING,
    State.CLOSING_TURN,
    State.SUMMING,
    State.CLOSING_SUM,
    State.SAVING,
)
_ENDINGS: dict[tuple[State, type[Message]], State] = {
    **{(state, JobEnd): State.ENDED for state in _ENDABLE},
    **{(state, Goodbye): State.OVER for state in (*_ENDABLE, State.ENDED)},
}

SILO_TABLE: Table = {**_SHARED, **_ENDINGS}

# The trunk may end the job while messages of the silo are still on their way to it.
LATE_MESSAGES = (
    Ready,
    TurnRequest,
    Activations,
    GradHidden,
    TurnEnd,
    RoundSaved,
    SumKey,
    SumConsent,
    SumPart,
    SumDone,
    Prefill,
    Decode,
    CacheEnd,
)
# Likewise where the trunk gives up a sum.
_LATE_IN_SUM = (SumKey, SumConsent, SumPart)
TRUNK_TABLE: Table = {
    **_SHARED,
    **_ENDINGS,
    **{(State.ENDED, message): State.ENDED for message in LATE_MESSAGES},
    # A request may cross the start of a turn, or the order to save, on its way.
    **{
        (state, TurnRequest): state
        for state in (
            State.TRAINING,
            State.EVALUATING,
            State.GENERATING,
            State.SAVING,
            State.CLOSING_TURN,
            State.SUMMING,
            State.CLOSING_SUM,
        )
    },
    **{(State.CLOSING_SUM, message): State.CLOSING_SUM for message in _LATE_IN_SUM},
    (State.CLOSING_TURN, Refusal): State.CLOSING_TURN,
}


def next_state(table: Table, state: State, message: Message) -> State | None:
    """Return the state that ``message`` leads to, or None where the table does not allow it."""
    if isinstance(message, TurnStart):
        return _PHASE_STATES.get(message.phase) if state is State.WAITING else None
    return table.get((state, type(message)))
