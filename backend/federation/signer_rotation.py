"""The spec-signer takes a new key; an offline root signs for it while the old one goes on signing."""

from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Federation
from backend.federation.authority import Authority
from backend.federation.revoking import Holder, revoke_serial
from backend.federation.service import federation_of
from backend.federation.signer import SIGNER_NAME, signer_certificate
from splitlearn.identity import Certificate, CertificateKind, SigningKey


def rotate_signer(session: Session, authority: Authority, *, days: int, actor: Actor, now: datetime) -> bool:
    """Make a new key; True if it signs from now on, False if it waits for the offline root.

    Asked again while one waits, that one goes on waiting. The caller has the living jobs signed anew.
    """
    row = federation_of(session, lock=True)
    row.next_signer_key = row.next_signer_key or SigningKey.generate().private_bytes()
    key = SigningKey.from_private_bytes(row.next_signer_key).public_key
    issued = authority.issue(key, kind=CertificateKind.SPEC_SIGNER, name=SIGNER_NAME, now=now, days=days)
    if issued is None:
        _record(session, "begin_signer_rotation", actor, now=now)
        return False
    replace_signer(session, authority, row, issued, actor=actor, now=now)
    return True


def replace_signer(
    session: Session,
    authority: Authority,
    row: Federation,
    certificate: Certificate,
    *,
    actor: Actor,
    now: datetime,
) -> None:
    """Let the next key take the old one's place, whose certificate is taken back."""
    assert row.next_signer_key is not None, "what is certified is the next key"
    old = signer_certificate(row)
    row.signer_key, row.next_signer_key = row.next_signer_key, None
    row.signer_certificate = certificate.to_bytes()
    listed = old is not None and revoke_serial(
        session, authority, old.serial, Holder(CertificateKind.SPEC_SIGNER.value, SIGNER_NAME, None), now=now
    )
    _record(
        session,
        "rotate_signer",
        actor,
        now=now,
        serial=str(certificate.serial),
        old_serial_on_revocation_list=listed,
    )


def _record(session: Session, action: str, actor: Actor, *, now: datetime, **details: str | bool) -> None:
    record(
        session,
        actor,
        at=now,
        action=action,
        subject_kind="federation",
        subject_name=SIGNER_NAME,
        details=details,
    )
