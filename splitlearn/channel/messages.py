"""The bodies of the three handshake messages (docs/protocol.md, "Handshake")."""

from dataclasses import dataclass, field
from enum import IntEnum

from splitlearn.channel.errors import (
    DowngradedSuiteError,
    MalformedHandshakeError,
    UnknownSuiteError,
)
from splitlearn.channel.schedule import MAC_BYTES
from splitlearn.channel.terms import ResumePoint, Terms
from splitlearn.identity import SIGNATURE_BYTES, Certificate, FieldReader
from splitlearn.wire import TAG_BYTES

RANDOM_BYTES = 32
SHARE_BYTES = 32
KEM_KEY_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
RESUME_BYTES = 8
MAX_HANDSHAKE_BODY_BYTES = 2048


class Suite(IntEnum):
    """Algorithms of a session.

    Attributes:
        CLASSICAL: Reserved for X25519 alone. Named so that an offer of it is refused as a downgrade.
        HYBRID: X25519 with ML-KEM-768, HKDF-SHA-256, Ed25519, AES-256-GCM.
    """

    CLASSICAL = 0x0001
    HYBRID = 0x0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Body of message 1: what the silo offers."""

    random: bytes
    share: bytes
    kem_key: bytes
    terms: Terms

    def to_bytes(self) -> bytes:
        """Return suite u16, random 32, share 32, encapsulation key 1184, terms."""
        suite = Suite.HYBRID.to_bytes(2, "big")
        return suite + self.random + self.share + self.kem_key + self.terms.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Hello":
        """Parse a hello.

        Raises:
            UnknownSuiteError, DowngradedSuiteError: The suite is not ours.
            MalformedHandshakeError: The rest is no hello.
        """
        reader = _reader(data)
        _refuse_other_suite(reader.unsigned(2))
        hello = cls(
            random=reader.take(RANDOM_BYTES),
            share=reader.take(SHARE_BYTES),
            kem_key=reader.take(KEM_KEY_BYTES),
            terms=Terms.read(reader),
        )
        reader.finish()
        return hello


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The clear part of message 2: the trunk's half of the key exchange."""

    random: bytes
    share: bytes
    kem_ciphertext: bytes

    def to_bytes(self) -> bytes:
        """Return random 32, share 32, ciphertext 1088."""
        return self.random + self.share + self.kem_ciphertext

    @classmethod
    def split(cls, body: bytes) -> tuple["Answer", bytes]:
        """Part a reply's body into its clear answer and its sealed proof.

        Raises:
            MalformedHandshakeError: It is too short for an answer.
        """
        reader = _reader(body[:ANSWER_BYTES])
        answer = cls(
            random=reader.take(RANDOM_BYTES),
            share=reader.take(SHARE_BYTES),
            kem_ciphertext=reader.take(KEM_CIPHERTEXT_BYTES),
        )
        return answer, body[ANSWER_BYTES:]


ANSWER_BYTES = RANDOM_BYTES + SHARE_BYTES + KEM_CIPHERTEXT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is sealed in messages 2 and 3: who speaks, and that they hold the keys."""

    certificate: Certificate
    signature: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    resume: ResumePoint

    def to_bytes(self) -> bytes:
        """Return certificate (u8 length before it), signature 64, MAC 32, resume point u64."""
        certificate = self.certificate.to_bytes()
        length = bytes([len(certificate)])
        return length + certificate + self.signature + self.mac + self.resume.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Proof":
        """Parse an opened proof.

        Raises:
            MalformedHandshakeError: It is none.
            MalformedCertificateError: The certificate in it is none.
        """
        reader = _reader(data)
        certificate = reader.take(reader.unsigned(1))
        signature = reader.take(SIGNATURE_BYTES)
        mac = reader.take(MAC_BYTES)
        resume = ResumePoint(reader.unsigned(RESUME_BYTES))
        reader.finish()
        return cls(
            certificate=Certificate.from_bytes(certificate), signature=signature, mac=mac, resume=resume
        )


def sealed_proof_bytes(certificate: Certificate) -> int:
    """Return how long the sealed proof with this certificate is."""
    return 1 + len(certificate.to_bytes()) + SIGNATURE_BYTES + MAC_BYTES + RESUME_BYTES + TAG_BYTES


def _reader(data: bytes) -> FieldReader:
    return FieldReader(data, refuse=MalformedHandshakeError, what="handshake message")


def _refuse_other_suite(suite: int) -> None:
    if suite == Suite.HYBRID:
        return
    if suite < Suite.HYBRID:
        raise DowngradedSuiteError(
            f"the peer offers suite {suite:#06x}; the least that is accepted is {Suite.HYBRID:#06x}"
        )
    raise UnknownSuiteError(
        f"the peer offers suite {suite:#06x}; known is {Suite.HYBRID:#06x}: update the older side"
    )
