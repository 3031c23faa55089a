"""Notices in the API."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from backend.db.models import ChannelKind
from backend.db.models.notice import MAX_TARGET
from backend.schemas import Answer, Body, Name

TopicWord = Literal["approval_awaited", "job_failed", "certificate_expires", "revocation_pending"]


class CreateChannelBody(Body):
    """Where notices are to go.

    Attributes:
        target: An e-mail address, or an https URL.
        topics: What it is told of; everything if left out.
    """

    name: Name
    kind: ChannelKind
    target: str = Field(min_length=3, max_length=MAX_TARGET)
    topics: Annotated[list[TopicWord], Field(min_length=1, max_length=4)] | None = None


class ChannelAnswer(Answer):
    """A channel without its secret."""

    name: str
    kind: ChannelKind
    target: str
    topics: list[str]
    created_by: str
    created_at: datetime


class CreatedChannelAnswer(ChannelAnswer):
    """A new channel; the secret is shown this once.

    Attributes:
        secret: What a webhook's receiver checks signatures with, in hexadecimal; None for e-mail.
    """

    secret: str | None


class NoticeAnswer(Answer):
    """A notice, and what became of it.

    Attributes:
        due_at: When it is tried next; None once it has arrived or was given up after three days.
        error: Why the last try failed; empty if none did.
    """

    id: uuid.UUID
    channel: str
    topic: str
    subject: str
    created_at: datetime
    due_at: datetime | None
    attempts: int
    delivered_at: datetime | None
    error: str
