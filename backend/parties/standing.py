"""Whether a party may act now: enrolled, not revoked, its certificate valid."""

from datetime import datetime, timedelta

from backend.db.models import Federation, Party, PartyKind, PartyStatus
from backend.federation.service import trust_of
from backend.parties.errors import CertificateExpiredError, PartyPendingError, PartyRevokedError
from splitlearn.errors import IdentityError
from splitlearn.identity import DEFAULT_TOLERANCE_SECONDS, Certificate, CertificateKind


def check_status(party: Party, federation: Federation, kind: PartyKind, *, now: datetime) -> None:
    """Refuse a party that may not act.

    Raises:
        PartyPendingError, PartyRevokedError, CertificateExpiredError: Says why.
    """
    if party.status is PartyStatus.REVOKED:
        raise PartyRevokedError(f"{kind.value} {party.name!r} was revoked at {party.revoked_at}")
    if party.status is PartyStatus.PENDING or party.certificate is None:
        raise PartyPendingError(f"{kind.value} {party.name!r} waits for its certificate")
    certificate = Certificate.from_bytes(party.certificate)
    try:
        trust_of(federation).verify(certificate, kind=CertificateKind(kind.value), name=party.name, now=now)
    except IdentityError as error:
        raise CertificateExpiredError(error.message) from error


def refused_from(party: Party) -> datetime | None:
    """Return from when on a party's certificate is refused: 48 hours after its end; None without one."""
    if party.certificate is None:
        return None
    ends = Certificate.from_bytes(party.certificate).not_after
    return ends + timedelta(seconds=DEFAULT_TOLERANCE_SECONDS)


def is_out(party: Party | None, *, now: datetime) -> bool:
    """Tell whether a party's connections are to be closed."""
    if party is None or party.status is not PartyStatus.ENROLLED:
        return True
    refused = refused_from(party)
    return refused is not None and refused < now
