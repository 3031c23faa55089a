"""What parties tell of their part in a job: events with numbers, never a text of theirs."""

import uuid
from datetime import datetime

from sqlalchemy import Double, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Word


class JobLogLine(Base):
    """One event of one party.

    Attributes:
        number: Grows with every line of the job that is received, so that a reader can go on.
        at: By the party's clock. With party and event it says which line this is: one that is sent twice is
            kept once.
    """

    __tablename__ = "job_log_lines"
    __table_args__ = (Index(None, "job_id", "party", "number"), Index(None, "job_id", "number"))

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    party: Mapped[str] = mapped_column(String(80), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    event: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int]
    level: Mapped[Word]
    code: Mapped[str] = mapped_column(String(64), default="", server_default="")
    round: Mapped[int | None]
    step: Mapped[int | None]
    epoch: Mapped[int | None]
    seconds: Mapped[float | None] = mapped_column(Double)
    received_at: Mapped[datetime]
