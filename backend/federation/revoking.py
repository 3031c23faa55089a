"""Taking certificates back: at once by our own record, and on the root's list once the root has signed."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.db.models import PendingRevocation
from backend.db.statements import insert_unless_there
from backend.federation.authority import Authority
from backend.federation.service import federation_of, revocations_of
from backend.notices.outbox import Topic, Word, tell
from splitlearn.identity import RevocationList


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose certificate it is.

    Attributes:
        kind: silo, worker or spec-signer.
        organization_id: Whose people are told; None for everybody's.
    """

    kind: str
    name: str
    organization_id: uuid.UUID | None


def revoke_serial(
    session: Session, authority: Authority, serial: int, holder: Holder, *, now: datetime
) -> bool:
    """Put a certificate on the root's list; False when a person has to sign it with the offline root.

    Until then it is remembered as pending, and people are told.
    """
    row = federation_of(session, lock=True)
    revocations = authority.revoke(serial, now=now, previous=revocations_of(row))
    if revocations is not None:
        row.revocation_list = revocations.to_bytes()
        return True
    current = revocations_of(row)
    if current is not None and serial in current.serials:
        return True
    text = str(serial)
    insert_unless_there(
        session, PendingRevocation, serial=text, kind=holder.kind, name=holder.name, since=now
    )
    word = Word(
        Topic.REVOCATION_PENDING,
        key=f"revocation {text}",
        subject=f"The revocation of {holder.kind} {holder.name} waits for the root's signature",
        facts={"kind": holder.kind, "name": holder.name, "serial": text},
        next="trunkline root pending; then, where the root is: trunkline root revoke",
    )
    tell(session, word, organization_id=holder.organization_id, now=now)
    return False


def settle_pending(session: Session, revocations: RevocationList) -> None:
    """Forget what the root's new list says."""
    serials = [str(serial) for serial in revocations.serials]
    session.execute(delete(PendingRevocation).where(PendingRevocation.serial.in_(serials)))


def pending_revocations(session: Session) -> list[PendingRevocation]:
    """Return what the root has still to sign, oldest first."""
    query = select(PendingRevocation).order_by(PendingRevocation.since, PendingRevocation.serial)
    return list(session.scalars(query))
