"""What sessions of generation refuse."""

from backend.errors import ConflictError, NotFoundError


class NoResultError(ConflictError):
    """The job has no result that could be generated with."""

    code = "no_result"
    remedy = "wait until the job has completed, or clone it: trunkline jobs clone"


class TooManyGenerationsError(ConflictError):
    """The silo has as many open sessions as it may have."""

    code = "too_many_generations"
    remedy = "wait until another one is through; one that was killed ends by itself"


class UnknownGenerationError(NotFoundError):
    """No such session, or it is another's."""
