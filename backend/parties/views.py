"""Parties' rows as the API shows them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Party, PartyStatus, PendingRevocation, Worker
from backend.parties.schemas import DeviceAnswer, PartyAnswer
from splitlearn.identity import Certificate

WARNED_BEFORE: Final = timedelta(days=30)
"""So long before a certificate's end people are told."""


def show_parties(session: Session, rows: Sequence[Party], *, now: datetime) -> list[PartyAnswer]:
    """Return parties for a list."""
    serials = [row.serial for row in rows if row.status is PartyStatus.REVOKED and row.serial is not None]
    query = select(PendingRevocation.serial).where(PendingRevocation.serial.in_(serials))
    pending = set(session.scalars(query)) if serials else set()
    return [_show(row, is_pending=row.serial in pending, now=now) for row in rows]


def show_party(session: Session, row: Party, *, now: datetime) -> PartyAnswer:
    """Return one party."""
    [shown] = show_parties(session, [row], now=now)
    return shown


def _show(row: Party, *, is_pending: bool, now: datetime) -> PartyAnswer:
    ends = Certificate.from_bytes(row.certificate).not_after if row.certificate else None
    is_revoked = row.status is PartyStatus.REVOKED and row.serial is not None
    return PartyAnswer(
        name=row.name,
        status=row.status,
        serial=row.serial,
        certificate_until=ends,
        certificate_ends_soon=ends is not None and not is_revoked and ends - WARNED_BEFORE <= now,
        is_rotating=row.next_public_key is not None,
        revocation=("pending_signature" if is_pending else "signed") if is_revoked else None,
        epoch=row.epoch,
        enrolled_at=row.enrolled_at,
        revoked_at=row.revoked_at,
        last_seen_at=row.last_seen_at,
        drained_at=row.drained_at if isinstance(row, Worker) else None,
        devices=[DeviceAnswer.model_validate(device) for device in row.devices]
        if isinstance(row, Worker)
        else [],
    )
