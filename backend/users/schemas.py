"""Users in the API."""

from datetime import datetime

from backend.db.models import Role
from backend.schemas import Answer, Body, Name


class CreateUserBody(Body):
    """A user to be made; the server makes the password."""

    name: Name
    role: Role


class ChangeUserBody(Body):
    """What is to change; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = None


class UserAnswer(Answer):
    """A user of your organisation."""

    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None


class PasswordAnswer(Answer):
    """A new password; it is shown this once."""

    name: str
    password: str
