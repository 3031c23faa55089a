"""Warning of certificates that end: 30 days ahead, 7, and 1; each time once, as an event and as a notice."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import CertificateWarning, PartyStatus, Project
from backend.db.statements import insert_unless_there
from backend.events import EventKind, emit
from backend.federation.service import find_federation
from backend.federation.signer import SIGNER_NAME, signer_certificate
from backend.notices.outbox import Topic, Word, tell
from backend.parties.repository import TABLES
from splitlearn.identity import Certificate, CertificateKind

WARNED_DAYS: Final = (1, 7, 30)
_NEXT: Final = {
    CertificateKind.SILO: "at the silo: trunkline-agent rotate-key",
    CertificateKind.WORKER: "at the worker: trunkline worker --rotate-key",
    CertificateKind.SPEC_SIGNER: "trunkline root rotate-signer",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate in use, and whose people are to hear of its end; None for everybody's."""

    certificate: Certificate
    organization_id: uuid.UUID | None


def due_days(certificate: Certificate, *, now: datetime) -> int | None:
    """Return the warning that is due: the least of ``WARNED_DAYS`` that the end is within, if any is."""
    left = certificate.not_after - now
    return next((days for days in WARNED_DAYS if left <= timedelta(days=days)), None)


def warn_of_ends(session: Session, *, now: datetime) -> int:
    """Warn of every certificate in use that ends soon, unless it was done before; return how many."""
    return sum(_warn(session, ending, now=now) for ending in _in_use(session))


def _in_use(session: Session) -> Iterator[Ending]:
    for table in TABLES.values():
        query = select(table.certificate, table.organization_id).where(table.status == PartyStatus.ENROLLED)
        for raw, organization_id in session.execute(query).all():
            if raw is not None:
                yield Ending(Certificate.from_bytes(raw), organization_id)
    federation = find_federation(session)
    certificate = signer_certificate(federation) if federation is not None else None
    if certificate is not None:
        yield Ending(certificate, None)


def _warn(session: Session, ending: Ending, *, now: datetime) -> bool:
    certificate = ending.certificate
    days = due_days(certificate, now=now)
    serial = str(certificate.serial)
    if days is None or not insert_unless_there(
        session, CertificateWarning, serial=serial, days=days, warned_at=now
    ):
        return False
    facts = {
        "kind": certificate.kind.value,
        "name": certificate.name,
        "serial": serial,
        "until": certificate.not_after.isoformat(),
    }
    _emit(session, ending, facts, now=now)
    what = "has ended" if certificate.not_after <= now else f"ends within {days} days"
    word = Word(
        Topic.CERTIFICATE_EXPIRES,
        key=f"certificate {serial} {days}",
        subject=f"The certificate of {certificate.kind.value} {certificate.name or SIGNER_NAME} {what}",
        facts=facts,
        next=_NEXT[certificate.kind],
    )
    tell(session, word, organization_id=ending.organization_id, now=now)
    return True


def _emit(session: Session, ending: Ending, facts: dict[str, str], *, now: datetime) -> None:
    """Tell every project of the organisation: a silo or worker serves them all."""
    query = select(Project.id).order_by(Project.id)
    if ending.organization_id is not None:
        query = query.where(Project.organization_id == ending.organization_id)
    for project_id in session.scalars(query).all():
        emit(session, project_id, EventKind.CERTIFICATE_EXPIRES, body=facts, now=now)
