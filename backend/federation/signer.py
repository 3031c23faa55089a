"""This server's own keys: one signs job specifications (with the root's word for it), one signs tickets."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend.audit.service import SERVER, record
from backend.db.models import Federation
from backend.errors import refused_as
from backend.federation.authority import Authority
from backend.federation.errors import CertificateForSignerRefusedError, MalformedCertificateRefusedError
from backend.federation.service import federation_of, trust_of
from splitlearn.errors import IdentityError
from splitlearn.identity import Certificate, CertificateKind, Identity, SigningKey

SIGNER_NAME = "control-plane"
_RENEWED_BEFORE_END = timedelta(days=30)


def ensure_keys(session: Session, authority: Authority, *, days: int, now: datetime) -> None:
    """Make the keys at the first start; with an embedded root, keep the spec-signer's certificate valid."""
    row = federation_of(session, lock=True)
    row.ticket_key = row.ticket_key or SigningKey.generate().private_bytes()
    row.signer_key = row.signer_key or SigningKey.generate().private_bytes()
    certificate = signer_certificate(row)
    if certificate is not None and certificate.not_after - _RENEWED_BEFORE_END > now:
        return
    issued = authority.issue(
        _key(row.signer_key).public_key,
        kind=CertificateKind.SPEC_SIGNER,
        name=SIGNER_NAME,
        now=now,
        days=days,
    )
    if issued is not None:
        row.signer_certificate = issued.to_bytes()
        record(
            session,
            SERVER,
            at=now,
            action="sign_certificate",
            subject_kind="federation",
            subject_name=SIGNER_NAME,
            details={"serial": str(issued.serial), "until": issued.not_after.isoformat()},
        )


def spec_signer(row: Federation, *, now: datetime) -> Identity | None:
    """Return who signs specifications; None while the offline root has not signed the key.

    Raises:
        IdentityError: The certificate has expired or was revoked: no silo would believe it.
    """
    certificate = signer_certificate(row)
    if certificate is None or row.signer_key is None:
        return None
    trust_of(row).verify(certificate, kind=CertificateKind.SPEC_SIGNER, name=SIGNER_NAME, now=now)
    return Identity(certificate, _key(row.signer_key))


def ticket_key(row: Federation) -> SigningKey:
    """Return the key for tickets."""
    assert row.ticket_key is not None, "made at the first start"
    return _key(row.ticket_key)


def signer_key(row: Federation) -> SigningKey:
    """Return the key for specifications, for the request that an offline root signs."""
    assert row.signer_key is not None, "made at the first start"
    return _key(row.signer_key)


def next_signer_key(row: Federation) -> SigningKey | None:
    """Return the key that follows once the offline root has signed for it."""
    return None if row.next_signer_key is None else _key(row.next_signer_key)


def check_signer_certificate(row: Federation, data: bytes, *, now: datetime) -> Certificate:
    """Return the certificate that an offline root signed, for the key that waits for one.

    Raises:
        MalformedCertificateRefusedError: The bytes are no certificate.
        CertificateForSignerRefusedError: Not the root's, or for another key, kind or name.
    """
    with refused_as(MalformedCertificateRefusedError):
        certificate = Certificate.from_bytes(data)
    try:
        trust_of(row).verify(certificate, kind=CertificateKind.SPEC_SIGNER, name=SIGNER_NAME, now=now)
        Identity(certificate, next_signer_key(row) or signer_key(row))
    except IdentityError as error:
        raise CertificateForSignerRefusedError(error.message) from error
    return certificate


def signer_certificate(row: Federation) -> Certificate | None:
    """Return the root's word for the key that signs; None while there is none."""
    return None if row.signer_certificate is None else Certificate.from_bytes(row.signer_certificate)


def _key(raw: bytes) -> SigningKey:
    return SigningKey.from_private_bytes(raw)
