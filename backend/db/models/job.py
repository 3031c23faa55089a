"""Jobs, their silos, rounds, leases and metrics."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Text, Word, one_of


class JobState(StrEnum):
    """Where a job stands."""

    SUBMITTED = "submitted"
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHING = "finishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    """What people asked for; the reconciler makes it true."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Approval(StrEnum):
    """A silo's word on a job."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"


class RoundState(StrEnum):
    """Where a round stands."""

    RUNNING = "running"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class Kept(StrEnum):
    """How much of what parties sent of a job is still there."""

    WHOLE = "whole"
    THINNED = "thinned"
    DROPPED = "dropped"


class Job(Base):
    """One training job.

    Attributes:
        spec_bytes: Canonical bytes of the specification, exactly as signed.
        spec_signature: Certificate and signature of the spec-signer.
        reason_who, reason_what, reason_where, reason_next: Why the job is in its state, for people.
        reason_code: The reason as one stable word.
        state_since: When the job came into its state.
        parent_id: The job that this one is a clone of.
        max_resume_round: Highest round that it may be resumed from; None for any.
        result_id: The trunk's trained tensors.
        last_metric_number: Number of the newest metric; raised under this row's lock.
        last_log_number: Likewise of the newest log line.
        correlation_id: Id of the request that submitted it; empty for jobs of before.
        schedule_asked: What was asked for, where the schedule was chosen; None elsewhere.
        schedule_reason: Why it became what the specification says.
        metrics_kept, logs_kept: How much of its numbers and log lines retention has left; see ``Kept``.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "state", "created_at", "id"),
        Index(None, "project_id", "name", "created_at", "id"),
        Index(None, "state", "created_at"),
        Index(None, "metrics_kept", "state_since"),
        Index(None, "logs_kept", "state_since"),
    )

    id: Mapped[Id]
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Name]
    model_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("models.id"), index=True)
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    spec_bytes: Mapped[bytes]
    spec_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    spec_signature: Mapped[bytes] = mapped_column(LargeBinary(255))
    schedule_asked: Mapped[Word | None]
    schedule_reason: Mapped[Text | None]
    state: Mapped[JobState] = mapped_column(one_of(JobState))
    desired: Mapped[Desired] = mapped_column(one_of(Desired))
    reason_code: Mapped[Word] = mapped_column(default="submitted", server_default="submitted")
    reason_who: Mapped[Name]
    reason_what: Mapped[Text]
    reason_where: Mapped[Name]
    reason_next: Mapped[Text]
    submitted_by: Mapped[Name]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    state_since: Mapped[datetime | None]
    max_resume_round: Mapped[int | None]
    result_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("artifacts.id", use_alter=True), index=True
    )
    last_metric_number: Mapped[int] = mapped_column(default=0, server_default="0")
    last_log_number: Mapped[int] = mapped_column(default=0, server_default="0")
    correlation_id: Mapped[str] = mapped_column(String(64), default="", server_default="")
    metrics_kept: Mapped[Word] = mapped_column(default=Kept.WHOLE.value, server_default="whole")
    logs_kept: Mapped[Word] = mapped_column(default=Kept.WHOLE.value, server_default="whole")


class JobSilo(Base):
    """A silo's part in a job; the position is the roster's.

    Attributes:
        attempt: The attempt that joined last, and the epoch that it joined.
        finish_outcome: ``completed`` or ``failed``, once the silo has said so; ``lost`` where the job goes on
            without it.
    """

    __tablename__ = "job_silos"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    silo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("silos.id"), primary_key=True, index=True)
    position: Mapped[int]
    dataset: Mapped[Name]
    approval: Mapped[Approval] = mapped_column(one_of(Approval))
    approval_reason: Mapped[Text]
    progressed_at: Mapped[datetime | None]
    approval_code: Mapped[Word] = mapped_column(default="", server_default="")
    attempt: Mapped[str | None] = mapped_column(String(32))
    attached_epoch: Mapped[int | None]
    finish_outcome: Mapped[Word | None]
    finish_code: Mapped[Word] = mapped_column(default="", server_default="")
    finish_message: Mapped[str] = mapped_column(String(2000), default="", server_default="")
    finished_at: Mapped[datetime | None]


class Round(Base):
    """One round of one trunk replica, committed once by the epoch that holds the lease."""

    __tablename__ = "rounds"
    __table_args__ = (
        CheckConstraint("(state = 'committed') = (committed_at IS NOT NULL)", name="committed_has_moment"),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    replica: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    state: Mapped[RoundState] = mapped_column(one_of(RoundState))
    checkpoint_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    started_at: Mapped[datetime]
    committed_at: Mapped[datetime | None]


_OPEN = text("released_at IS NULL")


class Lease(Base):
    """The right of one worker to train one replica of a job until a moment.

    Attributes:
        epoch: Grows with every new holder or attempt; compared at every commit and at the gateway.
        worker_epoch: The worker's own, when it was leased: another one is another process.
        dispatched_at: When the task was sent; None before that.
        renewed_at: The holder's last word; None before the first.
        round, step: How far the holder is.
    """

    __tablename__ = "leases"
    __table_args__ = (
        CheckConstraint("epoch > 0", name="epoch_positive"),
        Index(None, "worker_id", "released_at"),
        Index("ix_leases_open", "worker_id", postgresql_where=_OPEN, sqlite_where=_OPEN),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    replica: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    worker_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("workers.id"))
    epoch: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    released_at: Mapped[datetime | None]
    worker_epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    dispatched_at: Mapped[datetime | None]
    renewed_at: Mapped[datetime | None]
    round: Mapped[int] = mapped_column(default=0, server_default="0")
    step: Mapped[int] = mapped_column(default=0, server_default="0")


class Metric(Base):
    """One number of one party at one step. Sending it again replaces it: the key is what it is of.

    Attributes:
        number: Grows with every number of the job that is received, so that a reader can go on.
    """

    __tablename__ = "metrics"
    __table_args__ = (Index(None, "job_id", "number"), Index(None, "job_id", "name", "number"))

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    party: Mapped[str] = mapped_column(String(80), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float] = mapped_column(Double)
    number: Mapped[int] = mapped_column(default=0, server_default="0")
    received_at: Mapped[datetime]
