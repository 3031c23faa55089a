"""The federation root as this server knows it, invitations, and used log-in nonces."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, LargeBinary, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Word, one_of


class PartyKind(StrEnum):
    """Who may be invited."""

    SILO = "silo"
    WORKER = "worker"


class Federation(Base):
    """The one row that pins the federation root.

    Attributes:
        root_public_key: 32 bytes; never changes, for every silo has pinned it too.
        revocation_list: Newest list signed by the root.
        nonce_key: Authenticates the log-in nonces that this server hands out.
        ticket_key: Signs tickets for the gateway; made at the first start.
        signer_key: Signs job specifications, by ``signer_certificate``, which the root signed.
        next_signer_key: Follows it as soon as an offline root has signed for it.
    """

    __tablename__ = "federation"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    root_public_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    revocation_list: Mapped[bytes | None]
    nonce_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    ticket_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    signer_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    signer_certificate: Mapped[bytes | None]
    next_signer_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime]


class PendingRevocation(Base):
    """A certificate that this server believes no more, and that the root has not put on its list yet.

    Attributes:
        serial: In decimal, as of parties.
        kind, name: Whose it was.
    """

    __tablename__ = "pending_revocations"

    serial: Mapped[str] = mapped_column(String(20), primary_key=True)
    kind: Mapped[Word]
    name: Mapped[Name]
    since: Mapped[datetime]


class CertificateWarning(Base):
    """That people were warned of a certificate's end so many days ahead."""

    __tablename__ = "certificate_warnings"

    serial: Mapped[str] = mapped_column(String(20), primary_key=True)
    days: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    warned_at: Mapped[datetime]


class Invitation(Base):
    """Leave for one silo or worker to enrol.

    Attributes:
        secret_digest: SHA-256 of the secret in the invitation's text.
        used_by_key: Public key of who used it; the same key may ask again for its certificate.
    """

    __tablename__ = "invitations"

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), index=True)
    kind: Mapped[PartyKind] = mapped_column(one_of(PartyKind))
    name: Mapped[Name]
    secret_digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    created_by: Mapped[Name]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by_key: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    withdrawn_at: Mapped[datetime | None]


class UsedNonce(Base):
    """A log-in nonce that was used, kept until it would have expired anyway."""

    __tablename__ = "used_nonces"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
