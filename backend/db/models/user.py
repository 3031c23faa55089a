"""Users, their tokens, and failed sign-ins."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, LargeBinary, String, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backend.db.base import MAX_NAME, Base, Id, Name, one_of
from backend.db.models.organization import Membership, Role

MAX_EMAIL = 254
"""Characters of an address (RFC 5321, section 4.5.3.1.3, less its brackets)."""


class TokenKind(StrEnum):
    """Where a user's token came from."""

    SESSION = "session"
    API = "api"


class User(Base):
    """A person who may sign in.

    Attributes:
        email: What an OpenID provider knows the person by, in small letters.
        password_hash: Argon2id, with its parameters and salt.
        disabled_at: From when on neither password nor tokens are accepted.
    """

    __tablename__ = "users"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    email: Mapped[str | None] = mapped_column(String(MAX_EMAIL), unique=True, index=True)
    password_hash: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class ApiToken(Base):
    """A user's token in one organisation: of a sign-in, or made for a program.

    Attributes:
        digest: SHA-256 of the token, which itself is stored nowhere.
        role: The most that this token may do; the member's own role limits it further.
        scopes: Permissions that it passes on, separated by spaces; None for all of its role.
        by_openid: A sign-in that an OpenID provider vouched for, second factor and all.
    """

    __tablename__ = "api_tokens"

    id: Mapped[Id]
    membership_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("memberships.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[TokenKind] = mapped_column(one_of(TokenKind))
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    role: Mapped[Role] = mapped_column(one_of(Role))
    scopes: Mapped[str | None] = mapped_column(String(128))
    by_openid: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    membership: Mapped[Membership] = relationship(lazy="raise_on_sql")


class SignInAttempt(Base):
    """How often signing in failed lately, for one key.

    Attributes:
        key: Digest of what is throttled: an address, or a name as typed at an address.
        failures: Failures since ``since``.
        blocked_until: Before this moment, no attempt is looked at.
    """

    __tablename__ = "sign_in_attempts"

    key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    failures: Mapped[int]
    since: Mapped[datetime] = mapped_column(index=True)
    blocked_until: Mapped[datetime | None] = mapped_column(index=True)
