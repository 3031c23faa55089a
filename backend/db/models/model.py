"""Registered models."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Text, Word


class ModelState(StrEnum):
    """How far a model's registration is."""

    IMPORTING = "importing"
    READY = "ready"
    FAILED = "failed"


class Model(Base):
    """A model whose files by layer lie in the artifact store.

    While it is being imported, sizes are 0 and the digest is all zeros.

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
    state: Mapped[Word] = mapped_column(default=ModelState.READY.value, server_default="ready")
    state_reason: Mapped[Text] = mapped_column(default="", server_default="")
