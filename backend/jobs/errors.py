"""What jobs and leases refuse."""

from backend.errors import ConflictError, NotFoundError


class SpecRefusedError(ConflictError):
    """The specification names what is not there: a model, silo or data set."""

    status = 422
    code = "spec_refused"
    remedy = "correct the named field; see trunkline models list, silos list, and GET /api/v1/datasets"


class NoSpecSignerError(ConflictError):
    """The offline root has not signed this server's key for specifications yet."""

    code = "no_spec_signer"
    remedy = (
        "GET /api/v1/federation/spec-signer, sign it by: trunkline root sign, and PUT the certificate there"
    )


class JobOverError(ConflictError):
    """The job has ended."""

    code = "job_over"
    remedy = "retry or clone it to run it again"


class WrongStateError(ConflictError):
    """The job's state does not allow this."""

    code = "wrong_state"
    remedy = "look at the job's state and reason"


class LeaseLostError(ConflictError):
    """Another epoch holds the lease: whoever asks must end its work on it."""

    code = "lease_lost"
    remedy = "end this attempt; nothing that it does counts any more"


class NoLeaseError(ConflictError):
    """No worker hosts the trunk now."""

    code = "no_lease"
    remedy = "wait and ask again"


class UnknownJobError(NotFoundError):
    """No such job, or it is another organisation's."""
