"""Adding notices. A notice is written in the transaction of what it tells of: both, or neither.

They are sent afterwards, and again until they arrive: :mod:`backend.notices.postman`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db import wake_listeners
from backend.db.base import storable
from backend.db.models import Notice, NoticeChannel
from backend.db.models.notice import MAX_KEY
from backend.db.statements import insert_unless_there

MAX_SUBJECT = 200


class Topic(StrEnum):
    """What a notice may tell of."""

    APPROVAL_AWAITED = "approval_awaited"
    JOB_FAILED = "job_failed"
    CERTIFICATE_EXPIRES = "certificate_expires"
    REVOCATION_PENDING = "revocation_pending"
    TEST = "test"


CHOSEN = tuple(topic for topic in Topic if topic is not Topic.TEST)
"""What a channel may be told of; a test goes to every one."""


@dataclass(frozen=True, slots=True)
class Word:
    """What people are told.

    Attributes:
        key: What it is about: a channel is told the same once.
        subject: A sentence.
        facts: By name, for programs; never data, a token or a key.
        next: What to do.
    """

    topic: Topic
    key: str
    subject: str
    next: str
    facts: Mapping[str, str] = field(default_factory=dict)


def tell(session: Session, word: Word, *, organization_id: uuid.UUID | None, now: datetime) -> int:
    """Write a notice for each channel of an organisation that wants the topic; return how many are new.

    Args:
        session: The transaction of what it tells of.
        word: What.
        organization_id: Whose channels; None for those of all, where it concerns the whole server.
        now: The server's clock.
    """
    query = select(NoticeChannel)
    if organization_id is not None:
        query = query.where(NoticeChannel.organization_id == organization_id)
    channels = [row for row in session.scalars(query) if word.topic in row.topics.split()]
    return sum(put(session, word, channels, now=now))


def put(session: Session, word: Word, channels: Sequence[NoticeChannel], *, now: datetime) -> Sequence[bool]:
    """Write a notice for each of these channels, unless it has one of the same key; tell which are new."""
    body = {"topic": word.topic.value, "subject": word.subject, "facts": dict(word.facts), "next": word.next}
    if channels:
        wake_listeners(session)
        session.flush()
    return [
        insert_unless_there(
            session,
            Notice,
            id=uuid.uuid4(),
            channel_id=channel.id,
            key=word.key[:MAX_KEY],
            topic=word.topic.value,
            subject=storable(word.subject, MAX_SUBJECT),
            body=body,
            created_at=now,
            due_at=now,
            attempts=0,
            error="",
        )
        for channel in channels
    ]
