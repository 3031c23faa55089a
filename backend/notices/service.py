"""Setting channels, and looking at what was sent."""

import re
import secrets
import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import record
from backend.auth.callers import UserCaller
from backend.db.models import ChannelKind, Notice, NoticeChannel
from backend.db.models.user import MAX_EMAIL
from backend.errors import NotFoundError
from backend.notices.errors import (
    ChannelNameTakenError,
    MailOffError,
    TargetRefusedError,
    TooManyChannelsError,
)
from backend.notices.outbox import CHOSEN, Topic, Word, put
from backend.notices.schemas import ChannelAnswer, CreateChannelBody, NoticeAnswer
from backend.notices.webhook import check_url
from backend.paging import Cursor, is_behind
from backend.server import Server

MAX_CHANNELS: Final = 50
_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_SECRET_BYTES: Final = 32


def add_channel(
    session: Session, server: Server, caller: UserCaller, body: CreateChannelBody
) -> NoticeChannel:
    """Make a channel.

    Raises:
        TargetRefusedError: No notice goes there.
        MailOffError: This server sends no e-mail.
        ChannelNameTakenError, TooManyChannelsError: Says which.
    """
    _check_target(server, body)
    there = channels_of(session, caller.organization_id)
    if any(row.name == body.name for row in there):
        raise ChannelNameTakenError(f"your organisation has a channel {body.name!r}")
    if len(there) >= MAX_CHANNELS:
        raise TooManyChannelsError(
            f"your organisation has {len(there)} channels, the limit is {MAX_CHANNELS}"
        )
    row = NoticeChannel(
        organization_id=caller.organization_id,
        name=body.name,
        kind=body.kind.value,
        target=body.target,
        topics=" ".join(sorted(set(body.topics or CHOSEN))),
        secret=secrets.token_bytes(_SECRET_BYTES),
        created_by=caller.name,
        created_at=server.now(),
    )
    session.add(row)
    _record(session, server, caller, "add_notice_channel", row)
    return row


def remove_channel(session: Session, server: Server, caller: UserCaller, name: str) -> None:
    """Remove a channel, and what was to go there.

    Raises:
        NotFoundError: There is none.
    """
    row = find_channel(session, caller, name)
    session.delete(row)
    _record(session, server, caller, "remove_notice_channel", row)


def send_test(session: Session, server: Server, caller: UserCaller, name: str) -> Notice:
    """Write a test for a channel; it is sent at once, like every other notice.

    Raises:
        NotFoundError: There is no such channel.
    """
    channel = find_channel(session, caller, name)
    word = Word(
        Topic.TEST,
        key=f"test {uuid.uuid4()}",
        subject=f"A test of the channel {channel.name}",
        facts={"asked_by": caller.name},
        next="nothing: it arrived",
    )
    put(session, word, [channel], now=server.now())
    query = select(Notice).where(Notice.channel_id == channel.id, Notice.key == word.key)
    return session.scalars(query).one()


def channels_of(session: Session, organization_id: uuid.UUID) -> Sequence[NoticeChannel]:
    """Return an organisation's channels by name."""
    query = select(NoticeChannel).where(NoticeChannel.organization_id == organization_id)
    return session.scalars(query.order_by(NoticeChannel.name)).all()


def find_channel(session: Session, caller: UserCaller, name: str) -> NoticeChannel:
    """Return the organisation's channel of this name.

    Raises:
        NotFoundError: It has none.
    """
    query = select(NoticeChannel).where(
        NoticeChannel.organization_id == caller.organization_id, NoticeChannel.name == name
    )
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFoundError(f"your organisation has no channel {name!r}")
    return row


def notices_of(
    session: Session, channel: NoticeChannel, *, after: Cursor | None, limit: int
) -> Sequence[Notice]:
    """Return what a channel was told, oldest first."""
    query = select(Notice).where(Notice.channel_id == channel.id)
    if after is not None:
        query = query.where(is_behind(Notice.created_at, Notice.id, after))
    return session.scalars(query.order_by(Notice.created_at, Notice.id).limit(limit)).all()


def show_channel(row: NoticeChannel) -> ChannelAnswer:
    """Return a channel as the API shows it."""
    return ChannelAnswer(
        name=row.name,
        kind=ChannelKind(row.kind),
        target=row.target,
        topics=row.topics.split(),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def show_notice(row: Notice, channel: NoticeChannel) -> NoticeAnswer:
    """Return a notice as the API shows it."""
    return NoticeAnswer(
        id=row.id,
        channel=channel.name,
        topic=row.topic,
        subject=row.subject,
        created_at=row.created_at,
        due_at=row.due_at,
        attempts=row.attempts,
        delivered_at=row.delivered_at,
        error=row.error,
    )


def _check_target(server: Server, body: CreateChannelBody) -> None:
    if body.kind is ChannelKind.WEBHOOK:
        check_url(body.target, allow_private=server.settings.webhook_private)
        return
    if len(body.target) > MAX_EMAIL or not _EMAIL.fullmatch(body.target):
        raise TargetRefusedError(f"{body.target[:MAX_EMAIL]!r} is no e-mail address")
    if not server.settings.smtp_host:
        raise MailOffError("this server sends no e-mail")


def _record(session: Session, server: Server, caller: UserCaller, action: str, row: NoticeChannel) -> None:
    host = row.target.rpartition("@")[2] if row.kind == ChannelKind.EMAIL else row.target.split("/")[2]
    record(
        session,
        caller.actor,
        at=server.now(),
        action=action,
        subject_kind="notice_channel",
        subject_name=row.name,
        details={"kind": row.kind, "host": host, "topics": row.topics},
    )
