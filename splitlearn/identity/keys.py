"""Ed25519 keys (RFC 8032) whose every signature belongs to one context."""

from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from splitlearn.identity.errors import InvalidKeyError, SignatureError

PUBLIC_KEY_BYTES = 32
PRIVATE_KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD_PRIME = 2**255 - 19
_ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# Points of order 1, 2, 4 and 8. Under such a key a signature verifies for many messages, so that
# whoever holds the certificate could deny, and anybody else could forge, what it "signed".
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})


class Context(StrEnum):
    """What a signature is for. A signature made in one context never verifies in another."""

    CERTIFICATE = "trunkline/certificate/v1"
    REVOCATION_LIST = "trunkline/revocation-list/v1"
    JOB_SPEC = "trunkline/job-spec/v1"
    HANDSHAKE_SILO = "trunkline/handshake/v1/silo"
    HANDSHAKE_WORKER = "trunkline/handshake/v1/worker"
    ENROLMENT = "trunkline/enrolment/v1"
    AGENT_LOGIN = "trunkline/agent-login/v1"
    WORKER_LOGIN = "trunkline/worker-login/v1"
    KEY_ROTATION = "trunkline/key-rotation/v1"
    KEY_ROTATED = "trunkline/key-rotated/v1"
    GATEWAY_TICKET = "trunkline/gateway-ticket/v1"
    AUDIT_HEAD = "trunkline/audit-head/v1"
    SUM_KEY = "trunkline/sum-key/v1"
    SUM_ROSTER = "trunkline/sum-roster/v1"


def signed_bytes(context: Context, message: bytes) -> bytes:
    """Return what is really signed: context, 0x00, u64 length of the message, message."""
    return context.encode("ascii") + b"\0" + len(message).to_bytes(8, "big") + message


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 verification key.

    Args:
        raw: The 32 bytes of RFC 8032, section 5.1.5.

    Raises:
        InvalidKeyError: Wrong length, a non-canonical point, or one of small order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_KEY_BYTES:
            raise InvalidKeyError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, not {len(self.raw)}")
        y = int.from_bytes(self.raw, "little") & ((1 << 255) - 1)
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise InvalidKeyError("the Ed25519 public key is not canonical or of small order; make a new key")

    def verify(self, context: Context, message: bytes, signature: bytes) -> None:
        """Check a signature over a message in its context.

        Raises:
            SignatureError: It was made by another key, over another message or in another context.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(signature, signed_bytes(context, message))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"the signature in context {context.value!r} does not verify") from error

    def __repr__(self) -> str:
        return f"PublicKey({self.raw.hex()})"


class SigningKey:
    """An Ed25519 signing key. Its bytes never show in ``repr`` or logs."""

    __slots__ = ("_key", "_public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public_key = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a fresh key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, private_bytes: bytes) -> "SigningKey":
        """Return the key of these 32 secret bytes (RFC 8032, section 5.1.5).

        Raises:
            InvalidKeyError: Not 32 bytes.
        """
        if len(private_bytes) != PRIVATE_KEY_BYTES:
            raise InvalidKeyError(
                f"an Ed25519 private key has {PRIVATE_KEY_BYTES} bytes, not {len(private_bytes)}"
            )
        return cls(Ed25519PrivateKey.from_private_bytes(private_bytes))

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies what this one signs."""
        return self._public_key

    def private_bytes(self) -> bytes:
        """Return the 32 secret bytes, to be stored in a file of mode 0600 and nowhere else."""
        return self._key.private_bytes_raw()

    def sign(self, context: Context, message: bytes) -> bytes:
        """Return the 64-byte signature over a message in a context."""
        return self._key.sign(signed_bytes(context, message))

    def __repr__(self) -> str:
        return f"SigningKey(public_key={self._public_key.raw.hex()})"
