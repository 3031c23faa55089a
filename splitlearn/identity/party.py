"""One party's identity, and job specifications that a spec-signer vouches for."""

from dataclasses import dataclass, field
from datetime import datetime

from splitlearn.identity.certificate import MAX_CERTIFICATE_BYTES, Certificate, CertificateKind
from splitlearn.identity.errors import KeyMismatchError, MalformedSpecSignatureError
from splitlearn.identity.fields import FieldReader
from splitlearn.identity.keys import SIGNATURE_BYTES, Context, SigningKey
from splitlearn.identity.trust import TrustStore


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and the key that it certifies.

    Raises:
        KeyMismatchError: They do not belong together.
    """

    certificate: Certificate
    signing_key: SigningKey

    def __post_init__(self) -> None:
        if self.certificate.public_key != self.signing_key.public_key:
            raise KeyMismatchError(
                f"the certificate of {self.certificate.name!r} is for another key than the one beside it"
            )


@dataclass(frozen=True, slots=True)
class SpecSignature:
    """A spec-signer's word for the canonical bytes of one job specification.

    Layout: u8 length of the certificate, certificate, signature 64.
    """

    certificate: Certificate
    signature: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the one encoding of this signature, at most 255 bytes."""
        certificate = self.certificate.to_bytes()
        return bytes([len(certificate)]) + certificate + self.signature

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "SpecSignature":
        """Parse what :meth:`to_bytes` wrote. Nothing is verified here.

        Raises:
            MalformedSpecSignatureError: The bytes are no signature.
            MalformedCertificateError: The certificate in it is none.
        """
        if len(data) > 1 + MAX_CERTIFICATE_BYTES + SIGNATURE_BYTES:
            raise MalformedSpecSignatureError(f"{len(data)} bytes are too long for a spec's signature")
        reader = FieldReader(data, refuse=MalformedSpecSignatureError, what="spec signature")
        certificate = reader.take(reader.unsigned(1))
        signature = reader.take(SIGNATURE_BYTES)
        reader.finish()
        return cls(certificate=Certificate.from_bytes(certificate), signature=signature)


def sign_spec(spec_bytes: bytes, *, signer: Identity) -> SpecSignature:
    """Vouch for a job specification.

    Args:
        spec_bytes: ``JobSpec.canonical_bytes()``.
        signer: Identity of kind spec-signer.
    """
    return SpecSignature(signer.certificate, signer.signing_key.sign(Context.JOB_SPEC, spec_bytes))


def verify_spec(
    spec_bytes: bytes, signature: SpecSignature, *, trust: TrustStore, now: datetime
) -> Certificate:
    """Check that some spec-signer of the federation vouches for these very bytes.

    Args:
        spec_bytes: As received, before parsing.
        signature: As received.
        trust: Whose certificates are believed.
        now: The current moment, with a time zone.

    Returns:
        The signer's certificate, for the log and the silo's policy.

    Raises:
        IdentityError: The certificate is refused (its subclass says why).
        SignatureError: The signature is for other bytes or by another key.
    """
    certificate = signature.certificate
    trust.verify(certificate, kind=CertificateKind.SPEC_SIGNER, name=certificate.name, now=now)
    certificate.public_key.verify(Context.JOB_SPEC, spec_bytes, signature.signature)
    return certificate
