"""Queries of silos, workers, invitations and sessions."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from backend.db.models import (
    Generation,
    Invitation,
    Lease,
    Party,
    PartyKind,
    PartySession,
    PartyStatus,
    Silo,
    Worker,
)
from backend.paging import Cursor, is_behind
from backend.settings import Settings

TABLES: dict[PartyKind, type[Party]] = {PartyKind.SILO: Silo, PartyKind.WORKER: Worker}


def find_party(session: Session, kind: PartyKind, name: str, *, lock: bool = False) -> Party | None:
    """Return the federation's silo or worker of this name."""
    table = TABLES[kind]
    query = select(table).where(table.name == name)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def find_party_in(
    session: Session, kind: PartyKind, name: str, organization_id: uuid.UUID, *, lock: bool = False
) -> Party | None:
    """Return an organisation's silo or worker of this name."""
    found = find_party(session, kind, name, lock=lock)
    return found if found is not None and found.organization_id == organization_id else None


def parties_of(
    session: Session,
    kind: PartyKind,
    organization_id: uuid.UUID,
    *,
    status: PartyStatus | None,
    after: str,
    limit: int,
) -> Sequence[Party]:
    """Return an organisation's silos or workers by name, from behind ``after`` on."""
    table = TABLES[kind]
    query = select(table).where(table.organization_id == organization_id, table.name > after)
    if status is not None:
        query = query.where(table.status == status)
    return session.scalars(query.order_by(table.name).limit(limit)).all()


def find_invitation(session: Session, secret_digest: bytes) -> Invitation | None:
    """Return the invitation with this secret, locked until the transaction ends."""
    query = select(Invitation).where(Invitation.secret_digest == secret_digest)
    return session.scalars(query.with_for_update()).one_or_none()


def find_invitation_in(
    session: Session, kind: PartyKind, invitation_id: uuid.UUID, organization_id: uuid.UUID
) -> Invitation | None:
    """Return an organisation's invitation of this id, locked until the transaction ends."""
    query = select(Invitation).where(
        Invitation.id == invitation_id,
        Invitation.kind == kind,
        Invitation.organization_id == organization_id,
    )
    return session.scalars(query.with_for_update()).one_or_none()


def open_invitations(
    session: Session,
    kind: PartyKind,
    organization_id: uuid.UUID,
    *,
    now: datetime,
    after: Cursor | None,
    limit: int,
) -> Sequence[Invitation]:
    """Return an organisation's invitations that may still be used, oldest first, behind ``after``."""
    query = select(Invitation).where(
        Invitation.kind == kind,
        Invitation.organization_id == organization_id,
        Invitation.used_at.is_(None),
        Invitation.withdrawn_at.is_(None),
        Invitation.expires_at > now,
    )
    if after is not None:
        query = query.where(is_behind(Invitation.created_at, Invitation.id, after))
    return session.scalars(query.order_by(Invitation.created_at, Invitation.id).limit(limit)).all()


def sessions_of(kind: PartyKind, party_id: uuid.UUID) -> ColumnElement[bool]:
    """Return the condition under which a session is this party's."""
    column = PartySession.silo_id if kind is PartyKind.SILO else PartySession.worker_id
    return column == party_id


def newest_open_session(session: Session, kind: PartyKind, party_id: uuid.UUID) -> PartySession | None:
    """Return the party's session that was heard of last among those not closed."""
    query = select(PartySession).where(sessions_of(kind, party_id), PartySession.closed_at.is_(None))
    return session.scalars(query.order_by(PartySession.last_seen_at.desc()).limit(1)).one_or_none()


def online_workers(
    session: Session, settings: Settings, organization_id: uuid.UUID, *, now: datetime
) -> Sequence[Worker]:
    """Return an organisation's workers whose process lives and has told what it can do, by name.

    One that lost a lease by its silence is none of them until it is heard of again: it would be given the
    same job anew, and be waited for once more.
    """
    heard = now - timedelta(seconds=settings.party_silence_seconds)
    fell_silent = (
        select(Lease.job_id)
        .where(
            Lease.worker_id == Worker.id,
            Lease.worker_epoch == Worker.epoch,
            Lease.released_at > Lease.expires_at,
            Lease.released_at > heard,  # follows from the next line; an index finds the few leases by it
            Lease.released_at > PartySession.last_seen_at,
        )
        .correlate(Worker, PartySession)  # both are outside, at different depths
        .exists()
    )
    fell_silent_generating = (
        select(Generation.id)
        .where(
            Generation.worker_id == Worker.id,
            Generation.worker_epoch == Worker.epoch,
            Generation.released_at > Generation.expires_at,
            Generation.released_at > heard,
            Generation.released_at > PartySession.last_seen_at,
        )
        .correlate(Worker, PartySession)
        .exists()
    )
    is_alive = (
        select(PartySession.id)
        .where(
            ~fell_silent,
            ~fell_silent_generating,
            PartySession.worker_id == Worker.id,
            PartySession.closed_at.is_(None),
            PartySession.expires_at > now,
            PartySession.last_seen_at > heard,
            PartySession.epoch == Worker.epoch,
        )
        .exists()
    )
    query = select(Worker).where(
        Worker.organization_id == organization_id,
        Worker.status == PartyStatus.ENROLLED,
        Worker.reported_at.is_not(None),
        is_alive,
    )
    return session.scalars(query.order_by(Worker.name)).all()


def close_sessions(
    session: Session, kind: PartyKind, party_id: uuid.UUID, *, now: datetime, reason: str
) -> int:
    """Close all open sessions of a party; return how many."""
    query = select(PartySession.id).where(sessions_of(kind, party_id), PartySession.closed_at.is_(None))
    ids = session.scalars(query).all()
    session.execute(
        update(PartySession).where(PartySession.id.in_(ids)).values(closed_at=now, closed_reason=reason)
    )
    return len(ids)
