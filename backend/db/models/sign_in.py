"""What else a user signs in with: a second factor, and a name at an OpenID provider."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base

MAX_SUBJECT = 255
"""Characters of a provider's name for somebody (OpenID Connect Core, section 2)."""


class SecondFactor(Base):
    """A user's secret for codes by the clock (RFC 6238).

    Attributes:
        secret: What codes are computed from; as it is, since the server computes them too.
        confirmed_at: When a first code was right; before that, nobody is asked for one.
        last_step: Number of the 30 seconds whose code was used last; none up to it is taken again.
    """

    __tablename__ = "second_factors"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    secret: Mapped[bytes] = mapped_column(LargeBinary(20))
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(default=0, server_default="0")


class RecoveryCode(Base):
    """A code for who lost the device; its row goes when it is used.

    Attributes:
        digest: SHA-256 of the code, which itself is stored nowhere.
    """

    __tablename__ = "recovery_codes"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)


class OpenIdIdentity(Base):
    """Whom a provider means by a subject: found by the e-mail address at first, and by this ever after."""

    __tablename__ = "openid_identities"

    issuer: Mapped[str] = mapped_column(String(255), primary_key=True)
    subject: Mapped[str] = mapped_column(String(MAX_SUBJECT), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
