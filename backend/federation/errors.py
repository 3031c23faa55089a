"""What the federation's part refuses."""

from backend.errors import ConflictError, InvalidRequestError
from splitlearn.errors import IdentityError


class RootChangedError(IdentityError):
    """The root configured here is not the one that this database is pinned to."""

    code = "root_changed"


class RevocationListRefusedError(ConflictError):
    """The list is not the root's, or not newer than the one stored."""

    code = "revocation_list_refused"
    remedy = "make the next list from the newest one: trunkline root revoke --previous FILE"


class CertificateForSignerRefusedError(ConflictError):
    """The certificate is not the root's, or not for this server's key for specifications."""

    code = "certificate_refused"
    remedy = (
        "sign the very request that GET /api/v1/federation/spec-signer shows, with this federation's root"
    )


class MalformedCertificateRefusedError(InvalidRequestError):
    """The bytes are no certificate."""

    code = "malformed_certificate"
    remedy = "send the file that trunkline root sign wrote, whole"


class MalformedListRefusedError(InvalidRequestError):
    """The bytes are no revocation list."""

    code = "malformed_revocation_list"
    remedy = "send the file that trunkline root revoke wrote, whole"
