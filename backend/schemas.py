"""What request and answer bodies share."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from splitlearn.spec import Name as Name  # noqa: PLC0414 - re-exported: one rule for names everywhere

Item = TypeVar("Item")

MAX_NUMBER = 1 << 63
"""Rows are numbered below this."""

Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
"""Bytes in standard base 64; each field adds its own limit."""


class Body(BaseModel):
    """Base of request bodies: an unknown field is refused, so that a misspelt one is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Page(Answer, Generic[Item]):
    """A part of a list.

    Attributes:
        items: The rows.
        next: Give this as ``after`` to get the next part; None at the end.
    """

    items: list[Item]
    next: str | None = None
