"""Sessions in which a silo generates with what a job trained. No text, token or prompt is kept of them."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Text, Word, one_of
from backend.db.models.gateway import MAX_URL


class GenerationState(StrEnum):
    """Where a session stands."""

    WAITING = "waiting"
    HOSTED = "hosted"
    ENDED = "ended"


class Generation(Base):
    """One session of one silo, and the lease of the worker that hosts it, or did last.

    Attributes:
        attempt: The silo's own name for it.
        state: ``waiting`` for a worker, ``hosted``, or ``ended``.
        reason_code, reason_who, reason_what, reason_next: Why it is so, for people.
        epoch: Grows with every worker that gets it; compared at the gateway and at every word of the worker.
        worker_epoch: The worker's own, when it was leased: another one is another process.
        gateway_url: Where silo and worker meet in this epoch, where there are several gateways.
        hosted_at: When the lease was given.
        dispatched_at: When the task was sent; None before that.
        renewed_at: The holder's last word; None before the first.
        released_at: When the lease ended; None while it is held.
        asked_at: When the silo asked the worker last, as the worker tells.
        num_tokens: That workers computed, prompts included.
        heard_at: When the silo asked the control plane last.
    """

    __tablename__ = "generations"
    __table_args__ = (
        UniqueConstraint("silo_id", "attempt"),
        CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended_has_moment"),
        Index(None, "job_id", "created_at", "id"),
        Index(None, "state", "created_at"),
        Index(None, "worker_id", "released_at"),
    )

    id: Mapped[Id]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    silo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("silos.id"))
    attempt: Mapped[str] = mapped_column(String(32))
    state: Mapped[GenerationState] = mapped_column(one_of(GenerationState))
    reason_code: Mapped[Word]
    reason_who: Mapped[Name]
    reason_what: Mapped[Text]
    reason_next: Mapped[Text]
    worker_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("workers.id"))
    epoch: Mapped[int] = mapped_column(default=0)
    worker_epoch: Mapped[int] = mapped_column(default=0)
    gateway_url: Mapped[str | None] = mapped_column(String(MAX_URL))
    hosted_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    renewed_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]
    num_tokens: Mapped[int] = mapped_column(default=0)
    correlation_id: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime]
    heard_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
