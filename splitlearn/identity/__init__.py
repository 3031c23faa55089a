"""Who is who: the federation root, certificates, revocation, and signatures with a context each.

Nothing here opens a connection or reads a clock: ``now`` is passed in. Importable by every program;
needs no torch. The byte layouts are normative in ``docs/protocol.md``.
"""

from splitlearn.identity.admission import (
    LOGIN_CONTEXTS,
    Invitation,
    enrolment_statement,
    login_statement,
    rotated_statement,
    rotation_statement,
)
from splitlearn.identity.certificate import MAX_CERTIFICATE_BYTES, Certificate, CertificateKind
from splitlearn.identity.errors import (
    ExpiredCertificateError,
    ExposedKeyFileError,
    FingerprintError,
    InvalidKeyError,
    KeyMismatchError,
    MalformedCertificateError,
    MalformedInvitationError,
    MalformedKeyFileError,
    MalformedRevocationListError,
    MalformedSpecSignatureError,
    NotYetValidError,
    OldRevocationListError,
    RevokedCertificateError,
    SignatureError,
    UntrustedCertificateError,
    UntrustedRevocationListError,
    WrongKindError,
    WrongNameError,
)
from splitlearn.identity.fields import FieldReader, encode_name, is_name
from splitlearn.identity.fingerprint import Fingerprint
from splitlearn.identity.keys import SIGNATURE_BYTES, Context, PublicKey, SigningKey
from splitlearn.identity.party import Identity, SpecSignature, sign_spec, verify_spec
from splitlearn.identity.revocation import RevocationList
from splitlearn.identity.root import FederationRoot
from splitlearn.identity.trust import DEFAULT_TOLERANCE_SECONDS, TrustStore

__all__ = [
    "DEFAULT_TOLERANCE_SECONDS",
    "LOGIN_CONTEXTS",
    "MAX_CERTIFICATE_BYTES",
    "SIGNATURE_BYTES",
    "Certificate",
    "CertificateKind",
    "Context",
    "ExpiredCertificateError",
    "ExposedKeyFileError",
    "FederationRoot",
    "FieldReader",
    "Fingerprint",
    "FingerprintError",
    "Identity",
    "InvalidKeyError",
    "Invitation",
    "KeyMismatchError",
    "MalformedCertificateError",
    "MalformedInvitationError",
    "MalformedKeyFileError",
    "MalformedRevocationListError",
    "MalformedSpecSignatureError",
    "NotYetValidError",
    "OldRevocationListError",
    "PublicKey",
    "RevocationList",
    "RevokedCertificateError",
    "SignatureError",
    "SigningKey",
    "SpecSignature",
    "TrustStore",
    "UntrustedCertificateError",
    "UntrustedRevocationListError",
    "WrongKindError",
    "WrongNameError",
    "encode_name",
    "enrolment_statement",
    "is_name",
    "login_statement",
    "rotated_statement",
    "rotation_statement",
    "sign_spec",
    "verify_spec",
]
