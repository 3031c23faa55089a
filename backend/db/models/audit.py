"""Audit rows: who did what to whom, and whether it was allowed. Only ever added."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Name, Number, Word, one_of


class Outcome(StrEnum):
    """How a privileged action ended."""

    DONE = "done"
    REFUSED = "refused"


class AuditRow(Base):
    """One privileged action.

    Attributes:
        id: Number in the chain: 1, 2, 3, without a gap; given when the transaction commits.
        organization_id: Whose admins and auditors see it; None for what concerns the whole server.
        actor_kind: user, silo, worker, operator (the command line on the server) or anonymous.
        details: Facts for people; never a password, token, key or boot id in full.
        salt: Hides the content behind its digest, where that alone is shown.
        digest: Of the chain up to and with this row; see ``backend.audit.chain``.
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
    salt: Mapped[bytes] = mapped_column(LargeBinary(16))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))


class AuditHead(Base):
    """The one row that says where the chain ends. Its lock is what puts appends into an order.

    Attributes:
        number: Of the newest row; 0 before the first.
        digest: Of the chain up to there.
        signed_at: When the signature was made; None while there is none.
        signature: The spec-signer's, over number, digest and moment.
        certificate: The root's word for that key; None while the root has not given it.
    """

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    number: Mapped[int]
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    signed_at: Mapped[datetime | None]
    signature: Mapped[bytes | None] = mapped_column(LargeBinary(64))
    certificate: Mapped[bytes | None]
