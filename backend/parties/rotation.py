"""A party takes a new key: certified while the old one still works, in use once the party says so.

Normative in docs/control-plane.md, section 6. Both steps may be sent again at any time; a log-in with the
new key ends the rotation as well, should the party's word about it have been lost.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Party, PartyKind
from backend.federation.authority import Authority
from backend.federation.revoking import Holder, revoke_serial
from backend.federation.service import federation_of
from backend.parties.errors import LoginRefusedError
from backend.parties.nonces import check_nonce, spend_nonce
from backend.parties.repository import find_party
from backend.parties.standing import check_status
from backend.settings import Settings
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Context,
    PublicKey,
    SignatureError,
    rotated_statement,
    rotation_statement,
)


@dataclass(frozen=True, slots=True)
class Word:
    """Who says something, and what shows that it was said now."""

    kind: PartyKind
    name: str
    nonce: str
    address: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A new key, and the signatures of both keys that it may follow.

    Attributes:
        old_signature, new_signature: Over the rotation statement.
    """

    public_key: PublicKey
    old_signature: bytes
    new_signature: bytes


def begin(
    session: Session, settings: Settings, authority: Authority, word: Word, asked: Asked, *, now: datetime
) -> Party:
    """Have a new key certified; the old one goes on being the party's. Another new key takes its place.

    Raises:
        NonceRefusedError: Not ours, too old, or used.
        LoginRefusedError: No such party, or not both keys' signatures.
        PartyPendingError, PartyRevokedError, CertificateExpiredError: It may take no new key.
    """
    party = _speaks(session, settings, word, now=now)
    if party is None or not _is_proven(party, settings, word, asked):
        raise LoginRefusedError(f"no {word.kind.value} {word.name!r} with this key is enrolled")
    _spend(session, settings, word, now=now)
    check_status(party, federation_of(session), word.kind, now=now)
    if party.next_public_key != asked.public_key.raw:
        forget_next(session, authority, word.kind, party, now=now)
        party.next_public_key = asked.public_key.raw
        _record(session, word, party, "begin_key_rotation", now=now)
    if party.next_certificate is None:
        issued = authority.issue(
            asked.public_key,
            kind=CertificateKind(word.kind.value),
            name=word.name,
            now=now,
            days=settings.certificate_days,
        )
        party.next_certificate = issued.to_bytes() if issued else None
    return party


def finish(
    session: Session,
    settings: Settings,
    authority: Authority,
    word: Word,
    signature: bytes,
    *,
    now: datetime,
) -> Party:
    """Take a party's word that its new key is in use: the old one is refused from now on.

    Raises:
        NonceRefusedError: Not ours, too old, or used.
        LoginRefusedError: No such party, or the signature is of no key that is certified.
    """
    party = _speaks(session, settings, word, now=now)
    key = None if party is None else _key_in_use(party, settings, word, signature)
    if party is None or key is None:
        raise LoginRefusedError(f"no {word.kind.value} {word.name!r} with this key is enrolled")
    _spend(session, settings, word, now=now)
    check_status(party, federation_of(session), word.kind, now=now)
    if key.raw == party.next_public_key:
        complete(session, authority, word, party, now=now)
    return party


def complete(session: Session, authority: Authority, word: Word, party: Party, *, now: datetime) -> None:
    """Let the new key take the old one's place; sessions and connections go on."""
    assert party.next_certificate is not None, "a key without a certificate is not in use"
    holder = Holder(word.kind.value, party.name, party.organization_id)
    old_serial = party.serial
    certificate = Certificate.from_bytes(party.next_certificate)
    party.public_key = certificate.public_key.raw
    party.certificate, party.serial = party.next_certificate, str(certificate.serial)
    party.next_public_key = party.next_certificate = None
    listed = old_serial is not None and revoke_serial(session, authority, int(old_serial), holder, now=now)
    _record(
        session, word, party, "rotate_key", now=now, serial=party.serial, old_serial_on_revocation_list=listed
    )


def forget_next(
    session: Session, authority: Authority, kind: PartyKind, party: Party, *, now: datetime
) -> None:
    """Drop a rotation that is under way; what was certified for it is revoked."""
    if party.next_certificate is not None:
        serial = Certificate.from_bytes(party.next_certificate).serial
        holder = Holder(kind.value, party.name, party.organization_id)
        revoke_serial(session, authority, serial, holder, now=now)
    party.next_public_key = party.next_certificate = None


def _speaks(session: Session, settings: Settings, word: Word, *, now: datetime) -> Party | None:
    check_nonce(
        word.nonce,
        federation_of(session).nonce_key,
        audience=settings.audience,
        now=now,
        life_seconds=settings.login_nonce_seconds,
    )
    return find_party(session, word.kind, word.name, lock=True)


def _spend(session: Session, settings: Settings, word: Word, *, now: datetime) -> None:
    spend_nonce(session, word.nonce, now=now, life_seconds=settings.login_nonce_seconds)


def _is_proven(party: Party, settings: Settings, word: Word, asked: Asked) -> bool:
    old_key = PublicKey(party.public_key)
    statement = rotation_statement(
        audience=settings.audience,
        kind=CertificateKind(word.kind.value),
        name=word.name,
        nonce=word.nonce,
        old_key=old_key,
        new_key=asked.public_key,
    )
    return (
        asked.public_key != old_key
        and _is_signed(old_key, Context.KEY_ROTATION, statement, asked.old_signature)
        and _is_signed(asked.public_key, Context.KEY_ROTATION, statement, asked.new_signature)
    )


def _key_in_use(party: Party, settings: Settings, word: Word, signature: bytes) -> PublicKey | None:
    certified = [party.public_key]
    if party.next_public_key is not None and party.next_certificate is not None:
        certified.append(party.next_public_key)
    for key in map(PublicKey, certified):
        statement = rotated_statement(
            audience=settings.audience,
            kind=CertificateKind(word.kind.value),
            name=word.name,
            nonce=word.nonce,
            key=key,
        )
        if _is_signed(key, Context.KEY_ROTATED, statement, signature):
            return key
    return None


def _is_signed(key: PublicKey, context: Context, statement: bytes, signature: bytes) -> bool:
    try:
        key.verify(context, statement, signature)
    except SignatureError:
        return False
    return True


def _record(
    session: Session, word: Word, party: Party, action: str, *, now: datetime, **details: str | bool | None
) -> None:
    organization_id: uuid.UUID = party.organization_id
    record(
        session,
        Actor(word.kind.value, word.name, word.address, organization_id),
        at=now,
        action=action,
        subject_kind=word.kind.value,
        subject_name=word.name,
        details=details,
    )
