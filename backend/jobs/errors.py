"""What jobs and leases refuse."""

from backend.errors import ConflictError, InvalidRequestError, NotFoundError


class InvalidSpecError(InvalidRequestError):
    """A field of the specification is unknown, of a wrong type or out of range."""

    code = "spec"
    remedy = "correct the named fields; see trunkline jobs plan"


class UnservedSpecError(InvalidRequestError):
    """A field of the specification asks for what this version does not serve yet."""

    code = "unserved"
    remedy = "ask for what the message names instead"


class InvalidCutError(InvalidRequestError):
    """The cut does not fit the model."""

    code = "model"
    remedy = "correct the cut of the silos: both ends together hold fewer layers than the model"


class SpecRefusedError(ConflictError):
    """The specification names what is not there: a model, silo or data set."""

    status = 422
    code = "spec_refused"
    remedy = "correct the named field; see trunkline models list, silos list, and GET /api/v1/datasets"


class NoSpecSignerError(ConflictError):
    """The offline root has not signed this server's key for specifications, or its word has ended."""

    code = "no_spec_signer"
    remedy = (
        "GET /api/v1/federation/spec-signer, sign it by: trunkline root sign, and PUT the certificate there"
    )


class JobOverError(ConflictError):
    """The job has ended."""

    code = "job_over"
    remedy = "clone it to run it again; one that failed or was cancelled can also be retried"


class WrongStateError(ConflictError):
    """The job's state does not allow this."""

    code = "wrong_state"
    remedy = "look at the job's state and reason"


class NotRepeatableError(WrongStateError):
    """What the job needs is not there any more."""

    remedy = "bring back what the message names, or clone the job with changes"


class LeaseLostError(ConflictError):
    """Another epoch holds the lease: whoever asks must end its work on it."""

    code = "lease_lost"
    remedy = "end this attempt; nothing that it does counts any more"


class RoundCommittedError(ConflictError):
    """This epoch has committed the round with another checkpoint."""

    code = "round_committed"
    remedy = "end this attempt: two processes speak for one lease"


class NoSuchRoundError(InvalidRequestError):
    """The job has fewer rounds."""

    code = "no_such_round"
    remedy = "see rounds in the job's specification"


class NoLeaseError(ConflictError):
    """No worker hosts the trunk now."""

    code = "no_lease"
    remedy = "wait and ask again"


class UnknownJobError(NotFoundError):
    """No such job, or it is another organisation's."""
