"""Registered models."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Text, Word


class Model(Base):
    """A model whose files by layer lie in the artifact store.

    Attributes:
        source: The folder or hub id that it came from.
        digest: SHA-256 of the manifest's canonical bytes.
    """

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[Id]
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Name]
    source: Mapped[Text]
    family: Mapped[Word]
    num_layers: Mapped[int]
    num_parameters: Mapped[int]
    num_bytes: Mapped[int]
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
