"""Artifacts: what the content-addressed store holds, and for whom."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, one_of


class ArtifactKind(StrEnum):
    """What a stored blob is."""

    MODEL_LAYER = "model_layer"
    MODEL_FILE = "model_file"
    CHECKPOINT = "checkpoint"
    RESULT = "result"


class Artifact(Base):
    """One reference to one blob; several references may share it.

    Attributes:
        digest: SHA-256 of the content, which is also its address.
        expires_at: When retention may remove the reference; None keeps it.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        Index(None, "job_id", "created_at", "id"),
        Index(None, "project_id", "digest", "num_bytes"),
    )

    id: Mapped[Id]
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[ArtifactKind] = mapped_column(one_of(ArtifactKind))
    name: Mapped[Name]
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), index=True)
    num_bytes: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
