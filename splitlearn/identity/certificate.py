"""Certificates: the federation root's word that a key belongs to a named party.

Layout, integers big-endian (docs/protocol.md, "Certificates")::

    "TKC1"  kind u8  name (u8 length, ASCII)  public key 32  serial u64
    not_before u64  not_after u64 (seconds since 1970, UTC)  signature 64
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from splitlearn.identity.errors import InvalidKeyError, MalformedCertificateError
from splitlearn.identity.fields import (
    MAX_NAME_BYTES,
    MAX_UNIX_SECONDS,
    FieldReader,
    encode_name,
    is_name,
    unix_seconds,
    whole_seconds,
)
from splitlearn.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, PublicKey

MAGIC = b"TKC1"
MAX_SERIAL = 2**64 - 1
MAX_CERTIFICATE_BYTES = len(MAGIC) + 1 + 1 + MAX_NAME_BYTES + PUBLIC_KEY_BYTES + 3 * 8 + SIGNATURE_BYTES
"""190 bytes."""


class CertificateKind(StrEnum):
    """What the holder of a certificate may be."""

    SILO = "silo"
    WORKER = "worker"
    SPEC_SIGNER = "spec-signer"


_KIND_CODES = {CertificateKind.SILO: 1, CertificateKind.WORKER: 2, CertificateKind.SPEC_SIGNER: 3}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key, a name and a kind, bound for a time by the federation root.

    Having an object of this class proves nothing yet: only
    :meth:`splitlearn.identity.TrustStore.verify` looks at the signature.

    Attributes:
        kind: What the holder may be.
        name: Who the holder is; unique per kind within a federation.
        public_key: The holder's key.
        serial: Number by which a revocation list names this certificate, 1 to 2^64 - 1.
        not_before: Start of validity, UTC, whole seconds.
        not_after: End of validity, inclusive.
        signature: The root's Ed25519 signature over :meth:`signed_part`.

    Raises:
        MalformedCertificateError: A field is out of range.
    """

    kind: CertificateKind
    name: str
    public_key: PublicKey
    serial: int
    not_before: datetime
    not_after: datetime
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise MalformedCertificateError(f"the name {self.name!r} is not 1 to 64 of a-z 0-9 . _ -")
        if not 1 <= self.serial <= MAX_SERIAL:
            raise MalformedCertificateError(f"the serial {self.serial} is not in 1..{MAX_SERIAL}")
        if len(self.signature) != SIGNATURE_BYTES:
            raise MalformedCertificateError(
                f"the signature has {len(self.signature)} bytes, not {SIGNATURE_BYTES}"
            )
        _check_validity(self.not_before, self.not_after)

    def signed_part(self) -> bytes:
        """Return the bytes that the root signs: everything before the signature."""
        return b"".join(
            (
                MAGIC,
                bytes([_KIND_CODES[self.kind]]),
                encode_name(self.name),
                self.public_key.raw,
                self.serial.to_bytes(8, "big"),
                unix_seconds(self.not_before).to_bytes(8, "big"),
                unix_seconds(self.not_after).to_bytes(8, "big"),
            )
        )

    def to_bytes(self) -> bytes:
        """Return the one encoding of this certificate, at most 190 bytes."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "Certificate":
        """Parse a certificate. Its signature is not checked here.

        Raises:
            MalformedCertificateError: The bytes are no certificate, or not in the one encoding.
        """
        if len(data) > MAX_CERTIFICATE_BYTES:
            raise MalformedCertificateError(
                f"{len(data)} bytes are too long for a certificate; it has at most {MAX_CERTIFICATE_BYTES}"
            )
        reader = FieldReader(data, refuse=MalformedCertificateError, what="certificate")
        reader.expect(MAGIC)
        certificate = cls(
            kind=_read_kind(reader),
            name=reader.name(),
            public_key=_read_key(reader),
            serial=reader.unsigned(8),
            not_before=reader.moment(),
            not_after=reader.moment(),
            signature=reader.take(SIGNATURE_BYTES),
        )
        reader.finish()
        return certificate


def _check_validity(not_before: datetime, not_after: datetime) -> None:
    for moment in (not_before, not_after):
        if not 0 <= unix_seconds(moment) <= MAX_UNIX_SECONDS or moment != whole_seconds(moment):
            raise MalformedCertificateError(
                f"the moment {moment.isoformat()} is not in whole seconds from 1970 on; round it"
            )
    if not_after < not_before:
        raise MalformedCertificateError(
            f"the validity ends ({not_after.isoformat()}) before it begins ({not_before.isoformat()})"
        )


def _read_kind(reader: FieldReader) -> CertificateKind:
    code = reader.unsigned(1)
    if code not in _KINDS:
        raise MalformedCertificateError(f"the kind {code} is unknown; known are {sorted(_KINDS)}")
    return _KINDS[code]


def _read_key(reader: FieldReader) -> PublicKey:
    try:
        return PublicKey(reader.take(PUBLIC_KEY_BYTES))
    except InvalidKeyError as error:
        raise MalformedCertificateError(f"the certificate's key is refused: {error.message}") from error
