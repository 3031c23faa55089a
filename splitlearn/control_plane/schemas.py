"""What parties and control plane say to each other over REST: one schema for both ends.

Paths are below ``/api/v1``; docs/control-plane.md tells when each is called. A body with an unknown field is
refused; an answer may grow fields, which an older party ignores.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from splitlearn.planning import MAX_DEVICES, Rate, Speed
from splitlearn.spec import MAX_SILOS, Name

MAX_ANNOUNCED_DATASETS = 1000
MAX_MODELS = 32
"""Models that a worker names."""
MAX_METRICS = 1000
MAX_LOG_LINES = 100
"""Most lines of a log in one request."""
MAX_WAIT_SECONDS = 25.0
"""How long an answer may be held back: below the half minute after which proxies and clients give up."""
"""Most metrics of one request."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, in hexadecimal."""

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
"""Bytes in standard base 64."""

ProcessId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""16 random bytes that name one attempt of one process."""

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""A job's UUID; it is also the ``job`` of tickets, terms and envelopes."""

CorrelationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")]
"""The id of the request that submitted a job; it stands in every log line about it. Empty: unknown."""

Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Epoch = Annotated[int, Field(ge=1, lt=1 << 32)]
Replica = Annotated[int, Field(ge=0, lt=1 << 16)]


class Body(BaseModel):
    """Base of what a party sends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """Base of what a party gets."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DesiredState(StrEnum):
    """What people want of a job."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class BlobRef(Body):
    """A blob of the artifact store."""

    digest: Sha256
    num_bytes: int = Field(ge=0)


# Silos


class DatasetAnnouncement(Body):
    """All that a silo tells of a data set.

    Attributes:
        schema_digest: SHA-256 over the sorted column names and their kinds; never over a value.
    """

    name: Name
    task: Literal["causal-lm", "sft", "summarise", "choice", "any"]
    num_rows: int = Field(ge=1, lt=1 << 53)
    schema_digest: Sha256


class DatasetsBody(Body):
    """``PUT /silo/datasets``: every data set of the silo; what is left out is withdrawn."""

    datasets: tuple[DatasetAnnouncement, ...] = Field(max_length=MAX_ANNOUNCED_DATASETS)


class SiloLease(Answer):
    """Where a silo finds the trunk."""

    replica: int
    epoch: int
    worker: str
    gateway_url: str


class SiloJob(Answer):
    """A job as one of its silos sees it.

    Attributes:
        state: ``backend.db.models.JobState``.
        approval: This silo's own word: ``waiting``, ``approved`` or ``refused``.
        spec, signature: Canonical bytes and the spec-signer's word; verify before parsing.
        max_resume_round: Highest round that may be resumed from; None for any.
        lease: Set while a worker hosts the trunk.
        result: The trunk's trained tensors; set from ``finishing`` on.
        has_start: Whether this silo has a result of its own of the job that this one begins at
            (``start_from``); else it begins at the model.
        correlation_id: Stands in every line of the log about the job.
    """

    id: JobId
    name: str
    state: str
    desired: DesiredState
    approval: str
    spec: Base64
    signature: Base64
    max_resume_round: int | None = None
    lease: SiloLease | None = None
    result: BlobRef | None = None
    correlation_id: CorrelationId = ""
    has_start: bool = False


class SiloJobsAnswer(Answer):
    """``GET /silo/jobs``: the jobs that want something of this silo.

    Attributes:
        poll_seconds: Ask no sooner than so long after the last time.
        revocation_number: Of the newest revocation list; fetch it when it has grown.
        tag: Stands for the rest. Whoever sends it back may wait for another answer.
    """

    poll_seconds: float
    revocation_number: int
    jobs: tuple[SiloJob, ...]
    tag: str = ""


class ApprovalBody(Body):
    """``PUT /silo/jobs/{job}/approval``; the reason holds counts and names of columns, never a row."""

    decision: Literal["approved", "refused"]
    code: Word = "approved"
    reason: str = Field(default="", max_length=2000)


class AttachBody(Body):
    """``POST /silo/jobs/{job}/attach``: a new attempt of the silo to take part; answers a SiloLease.

    Where another attempt of this silo has joined the current epoch, the epoch is raised, because all
    conversations of the trunk have to begin again from the last common round.
    """

    attempt: ProcessId


class FinishBody(Body):
    """``POST /silo/jobs/{job}/finish``: the silo has its result, or cannot go on.

    Attributes:
        attempt: The attempt that says so; None where it is the agent's word about whatever attempt there was.
            That of an attempt that another one has taken the place of is refused.
    """

    attempt: ProcessId | None = None
    outcome: Literal["completed", "failed"]
    code: Word = "completed"
    message: str = Field(default="", max_length=2000)


# Workers


class DeviceBody(Body):
    """A device and what is free of it.

    Attributes:
        id: The worker's own word for it, such as ``cuda:1``.
    """

    id: str = Field(default="", max_length=16)
    kind: Literal["cuda", "mps", "cpu"]
    name: str = Field(max_length=128)
    total_memory_bytes: int = Field(ge=0)
    free_memory_bytes: int = Field(ge=0)


class RateBody(Body):
    """See ``splitlearn.planning.Rate``."""

    width: int = Field(ge=1, lt=1 << 24)
    flops_per_second: float = Field(gt=0)


class SpeedBody(Body):
    """How fast a party computes; see ``splitlearn.planning.Speed``."""

    layer_seconds: float = Field(gt=0)
    rates: tuple[RateBody, ...] = Field(min_length=1, max_length=8)
    logits_per_second: float = Field(gt=0)
    updates_per_second: float = Field(gt=0)
    tensor_seconds: float = Field(ge=0)

    @classmethod
    def of(cls, speed: Speed) -> "SpeedBody":
        """Return what is told of a speed."""
        return cls(
            layer_seconds=speed.layer_seconds,
            rates=tuple(
                RateBody(width=rate.width, flops_per_second=rate.flops_per_second) for rate in speed.rates
            ),
            logits_per_second=speed.logits_per_second,
            updates_per_second=speed.updates_per_second,
            tensor_seconds=speed.tensor_seconds,
        )

    def speed(self) -> Speed:
        """Return it as planning has it."""
        rates = sorted(self.rates, key=lambda rate: rate.width)
        return Speed(
            layer_seconds=self.layer_seconds,
            rates=tuple(Rate(rate.width, rate.flops_per_second) for rate in rates),
            logits_per_second=self.logits_per_second,
            updates_per_second=self.updates_per_second,
            tensor_seconds=self.tensor_seconds,
        )


class CapabilitiesBody(Body):
    """``PUT /worker/capabilities``: at log-in and whenever it has changed much.

    Attributes:
        device: The first of its devices.
        devices: All that a trunk may be laid over; none from a worker that serves one alone.
        precisions: Compute precisions of the specification that the device can do.
        families: Families of models that it can cut; none from a worker that does not tell.
        models: Digests of the models whose layers it has at hand, the last used first.
        trunk_tokens_per_second: Measured forward and backward on a small trunk; None before that.
        speed: What that follows from, in parts; None before it is measured.
    """

    version: str = Field(max_length=32)
    device: DeviceBody
    devices: tuple[DeviceBody, ...] = Field(default=(), max_length=MAX_DEVICES)
    precisions: tuple[Literal["fp32", "bf16", "fp16"], ...]
    families: tuple[Annotated[str, Field(max_length=64)], ...] = Field(default=(), max_length=256)
    models: tuple[Sha256, ...] = Field(default=(), max_length=MAX_MODELS)
    trunk_tokens_per_second: float | None = Field(default=None, gt=0)
    speed: SpeedBody | None = None


class Checkpoint(Body):
    """The trunk's state after a round."""

    round: int = Field(ge=1)
    blob: BlobRef


class RoundToAverage(Answer):
    """What the replicas of a trunk have committed of a round, in their order."""

    round: int = Field(ge=1)
    contributions: tuple[BlobRef, ...]


class LeaseAnswer(Answer):
    """``GET /worker/leases/{job}/{replica}?epoch=N``: what a dispatched worker is to do.

    Attributes:
        valid_seconds: The lease ends so long after this answer, unless renewed.
        renew_seconds: Renew at least so often.
        max_resume_round: Highest round that may be resumed from; None for any.
        checkpoint: The newest committed round that counts; None before the first.
        lost: Silos of the roster that rounds are trained without.
        average: With replicas: the average of the checkpoint's round over all of them, with which this one
            goes on.
        meeting: Set where no trunk is to be hosted, but a round of all replicas to be averaged.
        start: The trunk's tensors before the first step, of the job that ``start_from`` names; None for the
            model's, or where they are no longer kept.
    """

    job: JobId
    name: str
    replica: int
    epoch: int
    valid_seconds: float
    renew_seconds: float
    desired: DesiredState
    spec: Base64
    signature: Base64
    gateway_url: str
    max_resume_round: int | None = None
    checkpoint: Checkpoint | None = None
    lost: tuple[str, ...] = ()
    average: BlobRef | None = None
    meeting: RoundToAverage | None = None
    start: BlobRef | None = None


class RenewBody(Body):
    """``POST /worker/leases/{job}/{replica}/renew``."""

    epoch: Epoch
    round: int = Field(ge=0)
    step: int = Field(ge=0)


class RenewAnswer(Answer):
    """The lease goes on. A higher epoch: end this attempt, begin the next under it, same lease.

    Attributes:
        desired: ``pause`` is obeyed at the end of the round, ``cancel`` at once.
        drain: Give the lease back at the end of the round; another worker goes on.
        turn_over: Others wait for this worker: give the lease back at the end of the round, once one is done.
    """

    epoch: int
    valid_seconds: float
    desired: DesiredState
    drain: bool = False
    turn_over: bool = False


class CommitBody(Body):
    """``POST /worker/leases/{job}/{replica}/rounds``: compare and set on (job, replica, round, epoch)."""

    epoch: Epoch
    checkpoint: Checkpoint
    seconds: float = Field(ge=0)


class Reason(Body):
    """Why something is as it is, for people."""

    who: str = Field(max_length=64)
    what: str = Field(max_length=2000)
    where: str = Field(max_length=64)
    next: str = Field(max_length=2000)


class ReleaseBody(Body):
    """``POST /worker/leases/{job}/{replica}/release``: the worker has ended its work on this lease.

    Attributes:
        outcome: ``waiting`` for silos that made no progress within patience; ``stuck`` where a computation of
            the worker's own did not come back; ``round_done`` for a replica's round.
        result: The trunk's trained tensors; with ``completed`` only.
        away: With ``waiting``: those silos.
    """

    epoch: Epoch
    outcome: Literal[
        "completed", "failed", "cancelled", "paused", "drained", "waiting", "stuck", "round_done"
    ]
    code: Word = "completed"
    reason: Reason
    result: BlobRef | None = None
    away: tuple[Name, ...] = Field(default=(), max_length=MAX_SILOS)


# Both


class TicketBody(Body):
    """``POST /tickets``: leave to open one connection at the gateway.

    Attributes:
        silo: The conversation's silo; an agent names itself.
    """

    job: JobId
    replica: Replica
    epoch: Epoch
    silo: Name


class TicketAnswer(Answer):
    """A ticket, good for one connection that is opened soon."""

    ticket: str
    gateway_url: str
    valid_seconds: float


class MetricPoint(Body):
    """One number of one party.

    Attributes:
        name: For example ``loss``; see docs/control-plane.md.
        step: Global step, or -1 for a number of the whole round.
    """

    name: Word
    round: int = Field(ge=0, lt=1 << 31)
    step: int = Field(ge=-1, lt=1 << 31)
    value: float


class MetricsBody(Body):
    """``POST /metrics``: sending a point again replaces it.

    Attributes:
        replica: Of a worker's numbers: which of the job's trunks they are of. A silo tells none.
    """

    job: JobId
    replica: Replica | None = None
    metrics: tuple[MetricPoint, ...] = Field(min_length=1, max_length=MAX_METRICS)


class LogLine(Body):
    """One event of a party's part in a job. It has no place for a text: a word, a code, and numbers.

    Attributes:
        at: By the party's clock.
        code: Of the error, where there was one.
    """

    at: AwareDatetime
    level: Literal["info", "warning", "error"]
    event: Word
    code: Word | Literal[""] = ""
    round: int | None = Field(default=None, ge=0, lt=1 << 31)
    step: int | None = Field(default=None, ge=0, lt=1 << 31)
    epoch: Epoch | None = None
    seconds: float | None = Field(default=None, ge=0)


class LogsBody(Body):
    """``POST /logs``: what happened at a party, in order; sending a line again changes nothing."""

    job: JobId
    lines: tuple[LogLine, ...] = Field(min_length=1, max_length=MAX_LOG_LINES)


class DispatchBody(Body):
    """The arguments of the Celery tasks of a job: a hint; the lease decides.

    Attributes:
        replica: The trunk's to be hosted; the one after the last stands for the meeting that averages them.
        correlation_id: Stands in every line of the log about the job.
    """

    job: JobId
    replica: Replica
    epoch: Epoch
    correlation_id: CorrelationId = ""
