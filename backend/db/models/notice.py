"""Notices to people outside of the API: where they go, and what has still to go there."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import MAX_NAME, Base, Id, Name, Text, Word

MAX_TARGET = 1024
MAX_KEY = 160


class ChannelKind(StrEnum):
    """How a notice goes out."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class NoticeChannel(Base):
    """An address that an organisation's notices go to.

    Attributes:
        kind: A ``ChannelKind``.
        target: An e-mail address, or a URL.
        topics: What it is told of, separated by spaces.
        secret: What a webhook's notices are signed with; as it is, since this server signs.
    """

    __tablename__ = "notice_channels"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[Name]
    kind: Mapped[Word]
    target: Mapped[str] = mapped_column(String(MAX_TARGET))
    topics: Mapped[str] = mapped_column(String(255))
    secret: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_by: Mapped[str] = mapped_column(String(MAX_NAME))
    created_at: Mapped[datetime]


class Notice(Base):
    """One notice to one channel: written with what it tells of, and sent until it has arrived.

    Attributes:
        key: What it tells of; the same is told a channel once.
        topic, subject, body: What it says.
        due_at: Not tried before; None once it has arrived or was given up.
        attempts: How often it was tried.
        error: Why the last try failed.
    """

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("channel_id", "key"),
        Index(None, "channel_id", "created_at", "id"),
    )

    id: Mapped[Id]
    channel_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("notice_channels.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(MAX_KEY))
    topic: Mapped[Word]
    subject: Mapped[str] = mapped_column(String(200))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)
    due_at: Mapped[datetime | None] = mapped_column(index=True)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    delivered_at: Mapped[datetime | None]
    error: Mapped[Text] = mapped_column(default="", server_default="")
