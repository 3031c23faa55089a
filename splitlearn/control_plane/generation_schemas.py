"""What parties and control plane say to each other about generating with what a job trained.

As in :mod:`splitlearn.control_plane.schemas`; docs/generation.md tells when each is said. Never a text, a
token or a prompt: of those the control plane learns how many, at most.
"""

from typing import Literal

from pydantic import Field

from splitlearn.control_plane.schemas import (
    Answer,
    Base64,
    BlobRef,
    Body,
    CorrelationId,
    Epoch,
    JobId,
    ProcessId,
    Reason,
    Word,
)

MAX_TOKENS_TOLD = (1 << 53) - 1
"""Largest count of tokens that is told: every JSON reader holds it exactly."""

TOO_LONG = "too_long"
"""Reason of a session that has held its worker for as long as one may; another one may be opened."""

# Silos


class OpenGenerationBody(Body):
    """``POST /silo/jobs/{job}/generations``: begin a generation with what the job trained.

    Attributes:
        attempt: Random; the same one again is answered with the session that it began, so that a lost
            answer costs nothing.
    """

    attempt: ProcessId


class SiloGeneration(Answer):
    """``GET /silo/jobs/{job}/generations/{generation}``: how a session stands. Asking keeps it open.

    Attributes:
        id: The session's; it is also the ``job`` of its tickets, terms and envelopes.
        state: ``waiting`` for a worker, ``hosted`` by one, or ``ended``.
        reason_code, reason: Why it is so, for programs and for people.
        epoch: Of the worker's lease; a higher one is another attempt, with nothing of the last one kept.
        worker: Who hosts it; None while nobody does.
        poll_seconds: Ask again after so long.
        silence_seconds: Whoever does not ask for so long is taken for gone, and the session ends.
    """

    id: JobId
    job: JobId
    state: Literal["waiting", "hosted", "ended"]
    reason_code: Word
    reason: str
    epoch: int
    worker: str | None = None
    poll_seconds: float
    silence_seconds: float


class OpenedGeneration(SiloGeneration):
    """A session as it was opened.

    Attributes:
        name: The job's.
        spec, signature: Canonical bytes and the spec-signer's word; verify before parsing.
        round: The round whose weights the worker takes.
        result: The trunk's trained tensors: a silo whose own result was made with others has another round's.
    """

    name: str
    spec: Base64
    signature: Base64
    round: int
    result: BlobRef


# Workers


class GenerationDispatch(Body):
    """The arguments of the Celery task ``trunkline.host_generation``: a hint; the lease decides."""

    generation: JobId
    epoch: Epoch
    correlation_id: CorrelationId = ""


class GenerationLease(Answer):
    """``GET /worker/generations/{generation}?epoch=N``: what a dispatched worker is to do.

    Attributes:
        silo: With whom alone it generates.
        valid_seconds: The lease ends so long after this answer, unless renewed.
        renew_seconds: Renew at least so often.
        idle_seconds: Without a question for so long, give the lease back.
        round: The round whose weights the result has.
        result: The trunk's trained tensors.
    """

    generation: JobId
    job: JobId
    name: str
    silo: str
    epoch: int
    valid_seconds: float
    renew_seconds: float
    idle_seconds: float
    spec: Base64
    signature: Base64
    round: int
    result: BlobRef


class GenerationRenewBody(Body):
    """``POST /worker/generations/{generation}/renew``.

    Attributes:
        num_tokens: Computed so far under this lease, prompts included.
        idle_seconds: Since the last question.
    """

    epoch: Epoch
    num_tokens: int = Field(ge=0, le=MAX_TOKENS_TOLD)
    idle_seconds: float = Field(ge=0)


class GenerationRenewAnswer(Answer):
    """The lease goes on.

    Attributes:
        drain: An admin keeps this worker from further work: give the lease back now; another one goes on.
    """

    valid_seconds: float
    drain: bool = False


class GenerationReleaseBody(Body):
    """``POST /worker/generations/{generation}/release``: the worker has ended its work on this lease.

    Attributes:
        outcome: ``finished`` where the silo took its leave; ``idle`` where it asked nothing any more, or
            went away without a word; ``drained`` where the worker ends, and another one is to go on;
            ``stuck`` where a computation did not come back.
    """

    epoch: Epoch
    outcome: Literal["finished", "idle", "drained", "stuck", "failed"]
    code: Word = "finished"
    reason: Reason
    num_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS_TOLD)
