"""Inviting, enrolling and revoking silos and workers."""

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Invitation, Outcome, Party, PartyKind, PartyStatus, Worker
from backend.errors import NotFoundError, RecordedError
from backend.federation.authority import Authority
from backend.federation.revoking import Holder, revoke_serial
from backend.federation.service import federation_of, trust_of
from backend.parties.errors import (
    CertificateRefusedError,
    InvitationExpiredError,
    InvitationUnknownError,
    InvitationUsedError,
    InvitationWithdrawnError,
    PartyNameTakenError,
    PartyRevokedError,
    ProofRefusedError,
    WrongRootError,
)
from backend.parties.repository import (
    TABLES,
    close_sessions,
    find_invitation,
    find_invitation_in,
    find_party,
    find_party_in,
)
from backend.parties.rotation import forget_next
from backend.settings import Settings
from splitlearn.errors import IdentityError
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Context,
    Fingerprint,
    PublicKey,
    RevocationList,
    SignatureError,
    enrolment_statement,
)
from splitlearn.identity import Invitation as InvitationText


@dataclass(frozen=True, slots=True)
class Scope:
    """In whose name an admin acts, on which kind of party, and when."""

    kind: PartyKind
    organization_id: uuid.UUID
    actor: Actor
    now: datetime


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new party presents.

    Attributes:
        secret: The invitation's.
        fingerprint: The root that it pins.
        public_key: The new key.
        signature: Over the enrolment statement.
        address: Where it comes from.
    """

    secret: bytes
    fingerprint: Fingerprint
    public_key: PublicKey
    signature: bytes
    address: str


def invite(
    session: Session, settings: Settings, authority: Authority, scope: Scope, *, name: str, hours: int | None
) -> tuple[Invitation, str]:
    """Make an invitation; return its row and its text, which is stored nowhere.

    Raises:
        PartyNameTakenError: The name is taken in the federation.
    """
    if _is_taken(find_party(session, scope.kind, name), scope.organization_id):
        raise PartyNameTakenError(f"a {scope.kind.value} {name!r} is enrolled in this federation")
    text = InvitationText(
        kind=CertificateKind(scope.kind.value),
        name=name,
        url=settings.audience,
        fingerprint=authority.fingerprint,
        secret=secrets.token_bytes(32),
    )
    valid_hours = min(hours or settings.invitation_hours, settings.max_invitation_hours)
    row = Invitation(
        organization_id=scope.organization_id,
        kind=scope.kind,
        name=name,
        secret_digest=hashlib.sha256(text.secret).digest(),
        created_by=scope.actor.name,
        created_at=scope.now,
        expires_at=scope.now + timedelta(hours=valid_hours),
    )
    session.add(row)
    session.flush()
    _record(session, scope, action="invite", name=name, valid_hours=valid_hours)
    return row, text.to_text()


def withdraw(session: Session, scope: Scope, invitation_id: uuid.UUID) -> None:
    """Take an invitation back; one that was used stays used.

    Raises:
        NotFoundError: The organisation has none of this id that may still be used.
    """
    row = find_invitation_in(session, scope.kind, invitation_id, scope.organization_id)
    if row is None or row.used_at is not None or row.withdrawn_at is not None:
        raise NotFoundError(f"no open invitation {invitation_id}")
    row.withdrawn_at = scope.now
    _record(session, scope, action="withdraw_invitation", name=row.name)


def enrol(
    session: Session, settings: Settings, authority: Authority, enrolment: Enrolment, *, now: datetime
) -> tuple[PartyKind, Party]:
    """Admit an invited key under its name. The same key may ask again, for its certificate.

    Raises:
        InvitationUnknownError, InvitationUsedError, InvitationExpiredError, InvitationWithdrawnError:
            The invitation does not admit this key.
        WrongRootError: The invitation pins another root.
        ProofRefusedError: The signature is not this key's, over this invitation, for this server.
        PartyNameTakenError: Somebody else has enrolled under the name meanwhile.
        PartyRevokedError: This very enrolment was revoked since.
    """
    row = find_invitation(session, hashlib.sha256(enrolment.secret).digest())
    if row is None:
        raise InvitationUnknownError("this server made no such invitation")
    _check_root(session, row, enrolment, authority, now=now)
    _check_proof(session, row, enrolment, settings, now=now)
    if row.used_at is not None:
        return row.kind, _enrolled_before(session, row, enrolment, now=now)
    if row.withdrawn_at is not None:
        raise _refused(
            session, row, enrolment, InvitationWithdrawnError("the invitation was withdrawn"), now=now
        )
    if row.expires_at <= now:
        message = f"the invitation expired at {row.expires_at.isoformat()}"
        raise _refused(session, row, enrolment, InvitationExpiredError(message), now=now)
    return row.kind, _admit(session, settings, authority, row, enrolment, now=now)


def install_certificate(session: Session, scope: Scope, name: str, data: bytes) -> Party:
    """Store the certificate that an offline root signed for a pending request.

    Raises:
        NotFoundError: The organisation has no pending party of this name.
        CertificateRefusedError: Not the root's, or for another key, name or kind.
    """
    party = find_party_in(session, scope.kind, name, scope.organization_id, lock=True)
    if party is None or waiting_key(party) is None:
        raise NotFoundError(f"no {scope.kind.value} {name!r} waits for a certificate")
    try:
        certificate = Certificate.from_bytes(data)
        kind = CertificateKind(scope.kind.value)
        trust_of(federation_of(session)).verify(certificate, kind=kind, name=name, now=scope.now)
    except IdentityError as error:
        raise CertificateRefusedError(error.message) from error
    if certificate.public_key.raw != waiting_key(party):
        raise CertificateRefusedError(f"the certificate is for another key than the one of {name!r}")
    if party.status is PartyStatus.PENDING:
        _give(party, certificate)
    else:
        party.next_certificate = certificate.to_bytes()
    _record(session, scope, action="install_certificate", name=name, serial=str(certificate.serial))
    return party


def waiting_key(party: Party) -> bytes | None:
    """Return the key that waits for the root: a new party's, or one that is to follow; None if none does."""
    if party.status is PartyStatus.PENDING:
        return party.public_key
    is_waiting = party.status is PartyStatus.ENROLLED and party.next_certificate is None
    return party.next_public_key if is_waiting else None


def revoke(session: Session, authority: Authority, scope: Scope, name: str) -> Party:
    """Revoke a party at once: its sessions end, and it cannot log in again.

    Raises:
        NotFoundError: The organisation has no such party, or it is revoked already.
    """
    party = find_party_in(session, scope.kind, name, scope.organization_id, lock=True)
    if party is None or party.status is PartyStatus.REVOKED:
        raise NotFoundError(f"no {scope.kind.value} {name!r} that could be revoked")
    closed = _mark_revoked(session, scope.kind, party, now=scope.now)
    forget_next(session, authority, scope.kind, party, now=scope.now)
    holder = Holder(scope.kind.value, name, scope.organization_id)
    listed = party.serial is not None and revoke_serial(
        session, authority, int(party.serial), holder, now=scope.now
    )
    _record(session, scope, action="revoke", name=name, closed_sessions=closed, on_revocation_list=listed)
    return party


def drain(session: Session, scope: Scope, name: str) -> Worker:
    """Keep a worker from further rounds; saying it again changes nothing.

    Raises:
        NotFoundError: The organisation has no such worker, or it is revoked.
    """
    worker = _worker(session, scope, name)
    if worker.drained_at is None:
        worker.drained_at = scope.now
        _record(session, scope, action="drain", name=name)
    return worker


def undrain(session: Session, scope: Scope, name: str) -> Worker:
    """Let a worker take rounds again; saying it again changes nothing.

    Raises:
        NotFoundError: The organisation has no such worker, or it is revoked.
    """
    worker = _worker(session, scope, name)
    if worker.drained_at is not None:
        worker.drained_at = None
        _record(session, scope, action="undrain", name=name)
    return worker


def _worker(session: Session, scope: Scope, name: str) -> Worker:
    party = find_party_in(session, PartyKind.WORKER, name, scope.organization_id, lock=True)
    if not isinstance(party, Worker) or party.status is PartyStatus.REVOKED:
        raise NotFoundError(f"your organisation has no worker {name!r} that could be drained")
    return party


def apply_revocations(session: Session, revocations: RevocationList, *, now: datetime) -> list[str]:
    """Mark as revoked whoever an offline root's list names; return their names."""
    serials = {str(serial) for serial in revocations.serials}
    names: list[str] = []
    for kind, table in TABLES.items():
        for party in session.scalars(select(table).where(table.status == PartyStatus.ENROLLED)):
            if party.serial in serials:
                _mark_revoked(session, kind, party, now=now)
                names.append(party.name)
    return names


def _check_root(
    session: Session, row: Invitation, enrolment: Enrolment, authority: Authority, *, now: datetime
) -> None:
    if enrolment.fingerprint != authority.fingerprint:
        message = f"the invitation pins root {enrolment.fingerprint}; here it is {authority.fingerprint}"
        raise _refused(session, row, enrolment, WrongRootError(message), now=now)


def _check_proof(
    session: Session, row: Invitation, enrolment: Enrolment, settings: Settings, *, now: datetime
) -> None:
    statement = enrolment_statement(
        audience=settings.audience,
        kind=CertificateKind(row.kind.value),
        name=row.name,
        fingerprint=enrolment.fingerprint,
        secret=enrolment.secret,
        public_key=enrolment.public_key,
    )
    try:
        enrolment.public_key.verify(Context.ENROLMENT, statement, enrolment.signature)
    except SignatureError as error:
        message = f"the signature is not this key's, for {row.kind.value} {row.name!r} at {settings.audience}"
        raise _refused(session, row, enrolment, ProofRefusedError(message), now=now) from error


def _enrolled_before(session: Session, row: Invitation, enrolment: Enrolment, *, now: datetime) -> Party:
    if row.used_by_key != enrolment.public_key.raw:
        message = f"the invitation of {row.kind.value} {row.name!r} was used at {row.used_at}"
        raise _refused(session, row, enrolment, InvitationUsedError(message), now=now)
    party = find_party(session, row.kind, row.name)
    if party is None or party.public_key != enrolment.public_key.raw or party.status is PartyStatus.REVOKED:
        raise PartyRevokedError(f"{row.kind.value} {row.name!r} of this key was revoked")
    return party


def _admit(
    session: Session,
    settings: Settings,
    authority: Authority,
    row: Invitation,
    enrolment: Enrolment,
    *,
    now: datetime,
) -> Party:
    party = find_party(session, row.kind, row.name, lock=True)
    if _is_taken(party, row.organization_id):
        raise PartyNameTakenError(f"a {row.kind.value} {row.name!r} has enrolled meanwhile")
    if party is None:
        party = TABLES[row.kind](name=row.name, organization_id=row.organization_id, epoch=0)
        session.add(party)
    _renew(party, enrolment.public_key, now=now)
    certificate = authority.issue(
        enrolment.public_key,
        kind=CertificateKind(row.kind.value),
        name=row.name,
        now=now,
        days=settings.certificate_days,
    )
    if certificate is not None:
        _give(party, certificate)
    row.used_at, row.used_by_key = now, enrolment.public_key.raw
    serial = str(certificate.serial) if certificate else "not signed yet"
    _record_enrolment(session, row, enrolment, now=now, status=party.status.value, serial=serial)
    return party


def _is_taken(party: Party | None, organization_id: uuid.UUID) -> bool:
    if party is None:
        return False
    return party.status is not PartyStatus.REVOKED or party.organization_id != organization_id


def _renew(party: Party, public_key: PublicKey, *, now: datetime) -> None:
    # The epoch of a name that enrols again goes on growing: leases of the old key stay behind.
    party.public_key = public_key.raw
    party.status = PartyStatus.PENDING
    party.certificate = party.serial = party.boot_id = party.revoked_at = None
    party.next_public_key = party.next_certificate = None
    party.enrolled_at = now


def _give(party: Party, certificate: Certificate) -> None:
    party.certificate = certificate.to_bytes()
    party.serial = str(certificate.serial)
    party.status = PartyStatus.ENROLLED


def _mark_revoked(session: Session, kind: PartyKind, party: Party, *, now: datetime) -> int:
    party.status, party.revoked_at = PartyStatus.REVOKED, now
    return close_sessions(session, kind, party.id, now=now, reason="revoked")


def _refused(
    session: Session, row: Invitation, enrolment: Enrolment, error: RecordedError, *, now: datetime
) -> RecordedError:
    _record_enrolment(session, row, enrolment, now=now, outcome=Outcome.REFUSED, code=error.code)
    return error


def _record_enrolment(
    session: Session,
    row: Invitation,
    enrolment: Enrolment,
    *,
    now: datetime,
    outcome: Outcome = Outcome.DONE,
    **details: str,
) -> None:
    record(
        session,
        Actor("anonymous", "unknown", enrolment.address, row.organization_id),
        at=now,
        action="enrol",
        subject_kind=row.kind.value,
        subject_name=row.name,
        outcome=outcome,
        details=details,
    )


def _record(session: Session, scope: Scope, *, action: str, name: str, **details: str | int | bool) -> None:
    record(
        session,
        scope.actor,
        at=scope.now,
        action=action,
        subject_kind=scope.kind.value,
        subject_name=name,
        details=details,
    )
