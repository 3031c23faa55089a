"""Where conversations meet: one row each, so that two tickets minutes apart name the same gateway."""

import uuid
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import GatewaySign, Meeting
from backend.db.statements import insert_unless_there
from backend.gateway import Conversation
from backend.settings import Settings
from backend.tickets.choice import choose, present

_SIGNS_PER_SILENCE = 3
"""A gateway's row is written no more often: it asks every second, and each write wakes everybody."""
_log = structlog.get_logger("backend.tickets")


def find_gateway(
    session: Session, settings: Settings, conversation: Conversation, *, silo_id: uuid.UUID, now: datetime
) -> str | None:
    """Return where a conversation meets; None where that has to be arranged, anew or for the first time."""
    if len(settings.gateway_urls) == 1:
        return settings.gateway_urls[0]
    row = session.get(Meeting, (uuid.UUID(conversation.job), conversation.replica, silo_id))
    if row is None or row.epoch != conversation.epoch:
        return None
    return row.gateway_url if row.gateway_url in present_gateways(session, settings, now=now) else None


def arrange(
    session: Session, settings: Settings, conversation: Conversation, *, silo_id: uuid.UUID, now: datetime
) -> str:
    """Choose a gateway and write it down; the caller has locked the lease, so the other party reads it."""
    url = choose(present_gateways(session, settings, now=now), conversation)
    key = (uuid.UUID(conversation.job), conversation.replica, silo_id)
    row = session.get(Meeting, key)
    if row is None:
        row = Meeting(job_id=key[0], replica=key[1], silo_id=key[2])
        session.add(row)
    elif row.epoch == conversation.epoch:
        _log.warning(
            "meeting_moved", job=conversation.job, silo=conversation.silo, before=row.gateway_url, to=url
        )
    row.epoch, row.gateway_url, row.chosen_at = conversation.epoch, url, now
    return url


def is_sign_due(session: Session, settings: Settings, url: str, *, now: datetime) -> bool:
    """Whether it should be written down that a gateway has named itself."""
    if url not in settings.gateway_urls:
        _log.warning(
            "gateway_unknown", url=url, next="make TRUNKLINE_GATEWAY_OWN_URL one of TRUNKLINE_GATEWAY_URL"
        )
        return False
    if len(settings.gateway_urls) == 1:
        return False
    row = session.get(GatewaySign, url)
    return row is None or row.seen_at < now - timedelta(
        seconds=settings.gateway_silence_seconds / _SIGNS_PER_SILENCE
    )


def note_sign(session: Session, url: str, *, now: datetime) -> None:
    """Write down that a gateway has named itself."""
    insert_unless_there(session, GatewaySign, url=url, seen_at=now)
    row = session.get(GatewaySign, url, with_for_update=True, populate_existing=True)
    assert row is not None
    row.seen_at = max(row.seen_at, now)


def present_gateways(session: Session, settings: Settings, *, now: datetime) -> list[str]:
    """Return the gateways that are not known to be away."""
    rows = session.scalars(select(GatewaySign).where(GatewaySign.url.in_(settings.gateway_urls))).all()
    seen_at = {row.url: row.seen_at for row in rows}
    return present(settings.gateway_urls, seen_at, now=now, silence_seconds=settings.gateway_silence_seconds)
