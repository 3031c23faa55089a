"""What a party says of its own certificate's end."""

from datetime import datetime, timedelta
from typing import Final

from splitlearn.identity import DEFAULT_TOLERANCE_SECONDS, Certificate, CertificateKind

WARNED_BEFORE: Final = timedelta(days=30)
AGAIN_SECONDS: Final = 24 * 3600.0
"""A process that stays up says it once a day."""
_COMMANDS: Final = {
    CertificateKind.SILO: "trunkline-agent rotate-key",
    CertificateKind.WORKER: "trunkline worker --rotate-key",
}


def ending_sentence(certificate: Certificate, *, now: datetime) -> str | None:
    """Return what to say 30 days before a certificate's end, and after it; None before."""
    if certificate.not_after - WARNED_BEFORE > now:
        return None
    when = certificate.not_after.isoformat()
    hours = DEFAULT_TOLERANCE_SECONDS // 3600
    verb = "ended" if certificate.not_after <= now else "ends"
    command = _COMMANDS.get(certificate.kind, "the root signs a new one")
    return (
        f"the certificate {verb} at {when}, and is refused {hours} hours later; take a new key by: {command}"
    )
