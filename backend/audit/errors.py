"""What verifying an export of the audit refuses."""

from backend.errors import UnavailableError
from splitlearn.errors import IdentityError


class AuditBrokenError(IdentityError):
    """A row was changed, dropped, moved or added, or the head is not the federation's; says which."""

    code = "audit_broken"


class AuditFileError(AuditBrokenError):
    """The file is no export of an audit, or not the one encoding of it."""

    code = "audit_file"


class NoSignedHeadError(UnavailableError):
    """The federation root has not signed this server's key yet, so that nothing could be verified."""

    code = "no_signed_head"
    remedy = (
        "have the root sign what GET /api/v1/federation/spec-signer shows: docs/control-plane.md, section 3"
    )
