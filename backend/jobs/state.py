"""A job's life cycle as a table: which state follows which, and nothing else."""

from backend.db.models import JobState

_S = JobState

MOVES: dict[JobState, frozenset[JobState]] = {
    _S.SUBMITTED: frozenset({_S.AWAITING_APPROVAL, _S.CANCELLED, _S.FAILED}),
    _S.AWAITING_APPROVAL: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.PREPARING, _S.PAUSED, _S.CANCELLED, _S.FAILED}),
    _S.PREPARING: frozenset({_S.RUNNING, _S.QUEUED, _S.PAUSED, _S.FINISHING, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.PAUSED, _S.FINISHING, _S.CANCELLED, _S.FAILED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.FINISHING: frozenset({_S.COMPLETED, _S.CANCELLED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED, _S.AWAITING_APPROVAL}),  # a retry; asks again who has not answered
    _S.CANCELLED: frozenset({_S.QUEUED, _S.AWAITING_APPROVAL}),  # likewise
}

ENDED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})
HOSTED = frozenset({_S.PREPARING, _S.RUNNING})
"""A worker holds, or is about to take, the lease."""

WANTS_SILOS = frozenset({_S.AWAITING_APPROVAL, _S.QUEUED, _S.PREPARING, _S.RUNNING, _S.PAUSED, _S.FINISHING})
"""States in which a silo's agent should hold itself ready."""


class IllegalMoveError(RuntimeError):
    """Our own code asked for a move that the table does not have: a bug."""


def check_move(before: JobState, after: JobState) -> None:
    """Refuse a move that is not in the table.

    Raises:
        IllegalMoveError: It is not.
    """
    if after not in MOVES[before]:
        raise IllegalMoveError(f"no job goes from {before.value} to {after.value}")
