"""Audit rows: who did what to whom, and whether it was allowed. Only ever added."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Name, Number, Word, one_of


class Outcome(StrEnum):
    """How a privileged action ended."""

    DONE = "done"
    REFUSED = "refused"


class AuditRow(Base):
    """One privileged action.

    Attributes:
        organization_id: Whose admins and auditors see it; None for what concerns the whole server.
        actor_kind: user, silo, worker, operator (the command line on the server) or anonymous.
        details: Facts for people; never a password, token, key or boot id in full.
    """

    __tablename__ = "audit_rows"
    __table_args__ = (Index(None, "organization_id", "id"),)

    id: Mapped[Number]
    organization_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organizations.id"))
    happened_at: Mapped[datetime]
    actor_kind: Mapped[Word]
    actor_name: Mapped[Name]
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[Word]
    subject_kind: Mapped[Word]
    subject_name: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[Outcome] = mapped_column(one_of(Outcome))
    details: Mapped[dict[str, Any]]
