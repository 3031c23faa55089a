"""Sign-in and tokens in the API."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from backend.auth.codes import MAX_CODE
from backend.auth.passwords import MAX_PASSWORD, MIN_PASSWORD
from backend.auth.permissions import Permission
from backend.db.models import Role
from backend.schemas import Answer, Body, Name
from backend.settings import MAX_TOKEN_DAYS


def _refuse_half_characters(secret: SecretStr) -> SecretStr:
    if (
        not secret.get_secret_value().isprintable()
    ):  # JSON can write half of a surrogate pair, which no hash takes
        raise ValueError("a password holds printable characters only")
    return secret


Password = Annotated[SecretStr, AfterValidator(_refuse_half_characters)]


Code = Annotated[str, Field(min_length=1, max_length=MAX_CODE)]
"""Six digits, or a recovery code."""


class FactorState(StrEnum):
    """How a user stands to a second factor."""

    ON = "on"
    OFF = "off"
    DEMANDED = "demanded"


class SignInBody(Body):
    """A user's name and password, and the code of a second factor where there is one."""

    name: str = Field(min_length=1, max_length=64)
    password: Password = Field(min_length=1, max_length=MAX_PASSWORD)
    code: Code | None = Field(
        default=None,
        description="Of the second factor, or a recovery code. Whether one was lacking is not said.",
    )
    organization: Name | None = Field(default=None, description="Needed by who belongs to several.")
    cookie: bool = Field(
        default=False,
        description="For browsers: set the token as a cookie that no script can read, and do not show it.",
    )


class SignInAnswer(Answer):
    """A token for the header ``Authorization: Bearer TOKEN``; it is shown this once.

    Attributes:
        token: None where it was set as a cookie.
        csrf_token: Where it was, what requests that change something carry as ``X-CSRF-Token``.
    """

    token: str | None
    csrf_token: str | None
    expires_at: datetime
    name: str
    organization: str
    role: Role
    second_factor: FactorState = Field(
        description="``demanded``: nothing but getting one, under /me/second-factor, is open to this sign-in."
    )


class MeAnswer(Answer):
    """The caller as the server sees it."""

    name: str
    organization: str
    role: Role
    permissions: list[Permission]
    second_factor: FactorState
    csrf_token: str | None = Field(description="As at the sign-in, for who came with its cookie.")
    projects: dict[str, Role] = Field(description="Roles in single projects, instead of the one above.")


class ChangePasswordBody(Body):
    """The caller's old and new password."""

    current: Password = Field(min_length=1, max_length=MAX_PASSWORD)
    new: Password = Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class BeginFactorBody(Body):
    """The caller's password, so that nobody at an open screen can do it."""

    password: Password = Field(min_length=1, max_length=MAX_PASSWORD)


class BegunFactorAnswer(Answer):
    """A secret for a device that shows codes; it is shown this once.

    Attributes:
        secret: In base 32, to be typed in.
        uri: The same as ``otpauth://``, to be shown as a picture.
    """

    secret: str
    uri: str


class CodeBody(Body):
    """A code."""

    code: Code


class RecoveryCodesAnswer(Answer):
    """Codes for who loses the device, each good for once; they are shown this once."""

    recovery_codes: list[str]


class CreateTokenBody(Body):
    """An API token to be made.

    Attributes:
        name: For people: what it is used by.
        role: The most it may do; the caller's role if left out.
        scopes: What it passes on of that role; all if left out.
        valid_days: Its life; the server's default if left out.
    """

    name: Name
    role: Role | None = None
    scopes: Annotated[list[Permission], Field(min_length=1, max_length=len(Permission))] | None = None
    valid_days: int | None = Field(default=None, ge=1, le=MAX_TOKEN_DAYS)


class TokenAnswer(Answer):
    """An API token without its secret."""

    id: uuid.UUID
    name: str
    role: Role
    scopes: list[Permission]
    created_at: datetime
    expires_at: datetime


class CreatedTokenAnswer(TokenAnswer):
    """A new API token; ``token`` is shown this once."""

    token: str
