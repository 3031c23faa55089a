"""Users in the API."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from backend.db.models import Role
from backend.db.models.user import MAX_EMAIL
from backend.schemas import Answer, Body, Name

Email = Annotated[
    str,
    AfterValidator(str.lower),
    Field(min_length=3, max_length=MAX_EMAIL, pattern=r"^[!-?A-~]+@[A-Za-z0-9.-]+$"),
]


class CreateUserBody(Body):
    """A user to be made; the server makes the password."""

    name: Name
    role: Role
    email: Email | None = None


class ChangeUserBody(Body):
    """What is to change; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = None
    email: Email | None = Field(default=None, description="What an OpenID provider knows the person by.")


class UserAnswer(Answer):
    """A user of your organisation."""

    name: str
    role: Role
    email: str | None
    created_at: datetime
    disabled_at: datetime | None


class PasswordAnswer(Answer):
    """A new password; it is shown this once."""

    name: str
    password: str
