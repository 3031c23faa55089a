"""Sessions of agents and workers: log-in, heartbeat, end."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.tokens import TokenPrefix, new_token, token_digest
from backend.db.models import Outcome, Party, PartyKind, PartySession, PartyStatus
from backend.errors import NotSignedInError
from backend.federation.authority import Authority
from backend.federation.service import federation_of
from backend.parties.errors import IdentityInUseError, LoginRefusedError, SessionEndedError
from backend.parties.nonces import check_nonce, spend_nonce
from backend.parties.repository import (
    TABLES,
    close_sessions,
    find_party,
    newest_open_session,
    sessions_of,
)
from backend.parties.rotation import Word, complete
from backend.parties.standing import check_status, refused_from
from backend.parties.takeover import Entry, decide
from backend.settings import Settings
from splitlearn.identity import (
    LOGIN_CONTEXTS,
    CertificateKind,
    PublicKey,
    SignatureError,
    login_statement,
)

_SHOWN_OF_BOOT_ID = 8


@dataclass(frozen=True, slots=True)
class Login:
    """What a process presents.

    Attributes:
        boot_id: Random name of the process.
        previous_boot_id: The last process's, as its state folder says, or empty.
        signature: Over the log-in statement.
        address: Where it comes from.
    """

    kind: PartyKind
    name: str
    nonce: str
    boot_id: str
    previous_boot_id: str
    signature: bytes
    address: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A new session; the token is shown once."""

    token: str
    session: PartySession


@dataclass(frozen=True, slots=True)
class FoundSession:
    """An open session and whose it is."""

    session: PartySession
    party: Party
    kind: PartyKind


def log_in(
    session: Session, settings: Settings, authority: Authority, login: Login, *, now: datetime
) -> LoggedIn:
    """Check a log-in and open a session; one with a key that was to follow ends the rotation.

    Raises:
        NonceRefusedError: Not ours, too old, or used.
        LoginRefusedError: No such party, or not its signature.
        PartyPendingError, PartyRevokedError, CertificateExpiredError: The party may not log in now.
        IdentityInUseError: Another live process speaks for it.
    """
    federation = federation_of(session)
    life = settings.login_nonce_seconds
    audience = settings.audience
    check_nonce(login.nonce, federation.nonce_key, audience=audience, now=now, life_seconds=life)
    party = find_party(session, login.kind, login.name, lock=True)
    key = party and _key_of(party, login, audience=audience)
    if party is None or key is None:
        raise LoginRefusedError(f"no {login.kind.value} {login.name!r} with this key is enrolled")
    spend_nonce(session, login.nonce, now=now, life_seconds=life)
    check_status(party, federation, login.kind, now=now)
    if key == party.next_public_key:
        word = Word(login.kind, login.name, login.nonce, login.address)
        complete(session, authority, word, party, now=now)
    entry = _enter(session, settings, party, login, now=now)
    return _open(session, settings, party, login, entry, now=now)


def find_session(session: Session, digest: bytes, *, now: datetime) -> FoundSession:
    """Return the open session of this token's digest.

    Raises:
        NotSignedInError: There is none.
        SessionEndedError: It was closed, has expired, or its party was revoked.
    """
    row = session.scalars(select(PartySession).where(PartySession.digest == digest)).one_or_none()
    if row is None:
        raise NotSignedInError("the token is unknown")
    if row.closed_at is not None:
        raise SessionEndedError(f"the session was closed at {row.closed_at.isoformat()}: {row.closed_reason}")
    if row.expires_at <= now:
        raise SessionEndedError(f"the session expired at {row.expires_at.isoformat()}")
    kind = PartyKind.SILO if row.silo_id is not None else PartyKind.WORKER
    party = session.get_one(TABLES[kind], row.silo_id or row.worker_id)
    if party.status is not PartyStatus.ENROLLED:
        raise SessionEndedError(f"the {kind.value} {party.name!r} is {party.status.value}")
    return FoundSession(row, party, kind)


def is_open_session(session: Session, session_id: uuid.UUID) -> bool:
    """Tell whether a session was neither closed nor its party revoked; one that expired is renewed beside."""
    row = session.get(PartySession, session_id)
    if row is None or row.closed_at is not None:
        return False
    kind = PartyKind.SILO if row.silo_id is not None else PartyKind.WORKER
    return session.get_one(TABLES[kind], row.silo_id or row.worker_id).status is PartyStatus.ENROLLED


def heartbeat(session: Session, session_id: uuid.UUID, *, now: datetime) -> PartySession:
    """Note that a process lives.

    Raises:
        SessionEndedError: It was closed since the request came in.
    """
    row = session.get_one(PartySession, session_id, with_for_update=True)
    if row.closed_at is not None:
        raise SessionEndedError(f"the session was closed: {row.closed_reason}")
    row.last_seen_at = max(row.last_seen_at, now)  # one that was held up says nothing of later
    kind = PartyKind.SILO if row.silo_id is not None else PartyKind.WORKER
    session.get_one(TABLES[kind], row.silo_id or row.worker_id).last_seen_at = now
    return row


def log_out(session: Session, session_id: uuid.UUID, *, now: datetime) -> None:
    """Close a session, so that the next process need not wait for silence."""
    row = session.get_one(PartySession, session_id, with_for_update=True)
    if row.closed_at is None:
        row.closed_at, row.closed_reason = now, "logged out"


def _key_of(party: Party, login: Login, *, audience: str) -> bytes | None:
    """Return with which of its certified keys a party signed; None if with none."""
    kind = CertificateKind(login.kind.value)
    statement = login_statement(
        audience=audience,
        kind=kind,
        name=login.name,
        nonce=login.nonce,
        boot_id=login.boot_id,
        previous_boot_id=login.previous_boot_id,
    )
    following = party.next_public_key if party.next_certificate is not None else None
    for key in filter(None, (party.public_key, following)):
        try:
            PublicKey(key).verify(LOGIN_CONTEXTS[kind], statement, login.signature)
        except SignatureError:
            continue
        return key
    return None


def _enter(session: Session, settings: Settings, party: Party, login: Login, *, now: datetime) -> Entry:
    other = newest_open_session(session, login.kind, party.id)
    silence = timedelta(seconds=settings.party_silence_seconds)
    live = other is not None and other.expires_at > now and other.last_seen_at + silence > now
    entry = decide(
        recorded_boot_id=party.boot_id,
        other_is_live=live,
        boot_id=login.boot_id,
        previous_boot_id=login.previous_boot_id,
    )
    if entry is not Entry.RENEWAL:
        _record(session, party, login, entry, now=now)
    if entry is Entry.REFUSED:
        raise IdentityInUseError(
            f"another live process speaks for {login.kind.value} {login.name!r}: "
            f"boot {_short(party.boot_id)}, last heard of at {party.last_seen_at}"
        )
    return entry


def _open(
    session: Session, settings: Settings, party: Party, login: Login, entry: Entry, *, now: datetime
) -> LoggedIn:
    if entry.raises_epoch:
        reason = f"superseded by boot {_short(login.boot_id)}"
        close_sessions(session, login.kind, party.id, now=now, reason=reason)
        party.epoch += 1
    party.boot_id = login.boot_id
    party.last_seen_at = now
    mine = sessions_of(login.kind, party.id)
    session.execute(delete(PartySession).where(mine, PartySession.expires_at <= now))
    token = new_token(TokenPrefix.PARTY)
    row = PartySession(
        silo_id=party.id if login.kind is PartyKind.SILO else None,
        worker_id=party.id if login.kind is PartyKind.WORKER else None,
        digest=token_digest(token),
        boot_id=login.boot_id,
        epoch=party.epoch,
        created_at=now,
        expires_at=_session_end(settings, party, now=now),
        last_seen_at=now,
    )
    session.add(row)
    return LoggedIn(token, row)


def _session_end(settings: Settings, party: Party, *, now: datetime) -> datetime:
    """Return until when a session lives: no longer than the certificate is accepted."""
    ends = now + timedelta(seconds=settings.party_session_seconds)
    refused = refused_from(party)
    return ends if refused is None else min(ends, refused)


def _record(session: Session, party: Party, login: Login, entry: Entry, *, now: datetime) -> None:
    refused = entry is Entry.REFUSED
    record(
        session,
        Actor(login.kind.value, login.name, login.address, party.organization_id),
        at=now,
        action="log_in",
        subject_kind=login.kind.value,
        subject_name=login.name,
        outcome=Outcome.REFUSED if refused else Outcome.DONE,
        details={
            "entry": entry.value,
            "boot": _short(login.boot_id),
            "boot_before": _short(party.boot_id),
            "epoch": party.epoch if refused else party.epoch + 1,
        },
    )


def _short(boot_id: str | None) -> str:
    # In full it would let a reader of the audit take the party over (with its key).
    return (boot_id or "none")[:_SHOWN_OF_BOOT_ID]
