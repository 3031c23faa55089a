"""What identity refuses. Each reason has a class of its own, so that a log line needs no guessing.

::

    IdentityError
    ├── InvalidKeyError                not an Ed25519 key that we accept
    ├── SignatureError                 a signature does not verify
    ├── MalformedCertificateError      bytes or fields that are no certificate
    ├── UntrustedCertificateError      not signed by the pinned federation root
    ├── WrongKindError                 right root, other kind of party
    ├── WrongNameError                 right root and kind, other party
    ├── ExpiredCertificateError        validity has ended
    ├── NotYetValidError               validity has not begun
    ├── RevokedCertificateError        named by the revocation list
    ├── MalformedRevocationListError   bytes or fields that are no revocation list
    ├── UntrustedRevocationListError   not signed by the pinned federation root
    ├── OldRevocationListError         an older number than one seen, or the same number with other content
    ├── KeyMismatchError               a certificate is not for the key that lies beside it
    ├── MalformedSpecSignatureError    bytes that are no signature of a job specification
    ├── FingerprintError               text that is no fingerprint, or the fingerprint of another root
    ├── MalformedInvitationError       text that is no invitation, or was cut short
    ├── ExposedKeyFileError            others may read the root's file
    └── MalformedKeyFileError          the file does not hold a federation root
"""

from splitlearn.errors import IdentityError


class InvalidKeyError(IdentityError):
    """The bytes are no Ed25519 key that we accept: wrong length, not canonical, or of small order."""

    code = "invalid_key"


class SignatureError(IdentityError):
    """A signature was not made by this key, over this message, in this context."""

    code = "signature"


class MalformedCertificateError(IdentityError):
    """Bytes or fields are no certificate of version 1."""

    code = "malformed_certificate"


class UntrustedCertificateError(IdentityError):
    """The pinned federation root did not sign this certificate: a swapped key."""

    code = "untrusted_certificate"


class WrongKindError(IdentityError):
    """The certificate belongs to another kind of party than the one expected here."""

    code = "wrong_kind"


class WrongNameError(IdentityError):
    """The certificate belongs to another party than the one expected here."""

    code = "wrong_name"


class ExpiredCertificateError(IdentityError):
    """The certificate's validity has ended, beyond the tolerance for wrong clocks."""

    code = "expired_certificate"


class NotYetValidError(IdentityError):
    """The certificate's validity has not begun, beyond the tolerance for wrong clocks."""

    code = "not_yet_valid"


class RevokedCertificateError(IdentityError):
    """The federation root has revoked this certificate."""

    code = "revoked_certificate"


class MalformedRevocationListError(IdentityError):
    """Bytes or fields are no revocation list of version 1."""

    code = "malformed_revocation_list"


class UntrustedRevocationListError(IdentityError):
    """The pinned federation root did not sign this revocation list."""

    code = "untrusted_revocation_list"


class OldRevocationListError(IdentityError):
    """A newer list was seen already, or another list of the same number."""

    code = "old_revocation_list"


class KeyMismatchError(IdentityError):
    """A certificate and a signing key do not belong together."""

    code = "key_mismatch"


class MalformedSpecSignatureError(IdentityError):
    """Bytes are no signature of a job specification."""

    code = "malformed_spec_signature"


class FingerprintError(IdentityError):
    """A fingerprint was mistyped, or is that of another federation root."""

    code = "fingerprint"


class MalformedInvitationError(IdentityError):
    """Text is no invitation, or was mistyped or cut short on its way."""

    code = "malformed_invitation"


class ExposedKeyFileError(IdentityError):
    """Others than the owner may read or write the file of a private key."""

    code = "exposed_key_file"


class MalformedKeyFileError(IdentityError):
    """A file does not hold a federation root."""

    code = "malformed_key_file"
