"""Silos and workers: who they are, and the one process that speaks for each."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from backend.db.base import Base, Id, Name, one_of

MAX_BOOT_ID = 64


class PartyStatus(StrEnum):
    """How far a party's enrolment is."""

    PENDING = "pending"
    ENROLLED = "enrolled"
    REVOKED = "revoked"


class Party(Base):
    """What silos and workers have in common; each is a table of its own.

    Attributes:
        name: Unique among the federation's parties of this kind, as in the certificate.
        certificate: Signed by the root; absent while the request waits for an offline root.
        serial: The certificate's serial in decimal; 64 bits without a sign fit no integer column.
        next_public_key, next_certificate: While the key is rotated: what follows once the party has used it.
        boot_id: Of the process that last logged in.
        epoch: Raised whenever another process takes over; never falls.
    """

    __abstract__ = True

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    status: Mapped[PartyStatus] = mapped_column(one_of(PartyStatus))
    certificate: Mapped[bytes | None]
    serial: Mapped[str | None] = mapped_column(String(20))
    next_public_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    next_certificate: Mapped[bytes | None]
    boot_id: Mapped[str | None] = mapped_column(String(MAX_BOOT_ID))
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    enrolled_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]

    @declared_attr
    def organization_id(cls) -> Mapped[uuid.UUID]:  # noqa: N805 - SQLAlchemy calls it on the class
        """The organisation that invited this party."""
        return mapped_column(ForeignKey("organizations.id"))


class Silo(Party):
    """An organisation's site that holds data."""

    __tablename__ = "silos"
    __table_args__ = (Index(None, "organization_id", "name"),)


class Worker(Party):
    """A process with a device that hosts trunks.

    Attributes:
        capabilities: What it said of its device; None before its first word.
        drained_at: Since when an admin keeps it from further rounds; None: it takes them.
    """

    __tablename__ = "workers"
    __table_args__ = (Index(None, "organization_id", "name"),)

    capabilities: Mapped[dict[str, Any] | None]
    reported_at: Mapped[datetime | None]
    drained_at: Mapped[datetime | None]

    @property
    def devices(self) -> list[dict[str, Any]]:
        """What it said of each of its devices."""
        told = self.capabilities or {}
        return list(told.get("devices") or ([told["device"]] if "device" in told else []))


class PartySession(Base):
    """The session of a logged-in agent or worker process.

    Attributes:
        digest: SHA-256 of the token.
        epoch: The party's epoch when this process logged in.
        closed_reason: Why it ended, for the answer to a late request.
    """

    __tablename__ = "party_sessions"
    __table_args__ = (CheckConstraint("(silo_id IS NULL) <> (worker_id IS NULL)", name="one_party"),)

    id: Mapped[Id]
    silo_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("silos.id"), index=True)
    worker_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("workers.id"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    boot_id: Mapped[str] = mapped_column(String(MAX_BOOT_ID))
    epoch: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    last_seen_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    closed_reason: Mapped[str | None] = mapped_column(String(64))
