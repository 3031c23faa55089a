"""Events of a project, numbered without gaps."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Word


class Event(Base):
    """Something that happened, for whoever watches a project or one of its jobs."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "job_id", "number"),)

    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[Word]
    body: Mapped[dict[str, Any]]
    happened_at: Mapped[datetime]
