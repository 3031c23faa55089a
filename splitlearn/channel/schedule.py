"""Transcript hashes and the key schedule (docs/protocol.md, "Transcript" and "Key schedule")."""

import hashlib
import hmac
from enum import StrEnum

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

KEY_BYTES = 32
MAC_BYTES = 32
_PREFIX = b"trunkline/channel/v1/"


class Stage(StrEnum):
    """How far a transcript reaches."""

    EXCHANGE = "exchange"
    REPLY = "reply"
    REPLIED = "replied"
    CONFIRM = "confirm"
    TRAFFIC = "traffic"


class Use(StrEnum):
    """What a key is for. No key has two uses."""

    REPLY_SEAL = "reply-seal"
    REPLY_MAC = "reply-mac"
    CONFIRM_SEAL = "confirm-seal"
    CONFIRM_MAC = "confirm-mac"
    SILO_TO_TRUNK = "silo-to-trunk"
    TRUNK_TO_SILO = "trunk-to-silo"


def transcript_hash(stage: Stage, *parts: bytes) -> bytes:
    """Return SHA-256 over the stage's label and the parts, each with its u32 length before it."""
    digest = hashlib.sha256(_PREFIX + stage.encode("ascii") + b"\0")
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def next_key(key: bytes | bytearray) -> bytes:
    """Return the traffic key that follows this one; the way back is closed."""
    return HKDFExpand(SHA256(), KEY_BYTES, _PREFIX + b"next-key\0").derive(bytes(key))


class KeySchedule:
    """All keys of one handshake, from its two shared secrets (HKDF, RFC 5869).

    Args:
        x25519_secret: 32 bytes.
        mlkem_secret: 32 bytes.
        exchange_hash: Transcript hash of stage ``exchange``: the salt.
    """

    __slots__ = ("_pseudorandom_key",)

    def __init__(self, *, x25519_secret: bytes, mlkem_secret: bytes, exchange_hash: bytes) -> None:
        self._pseudorandom_key = HKDF.extract(SHA256(), exchange_hash, x25519_secret + mlkem_secret)

    def key(self, use: Use, transcript: bytes) -> bytes:
        """Return the 32-byte key for one use, bound to the transcript so far."""
        info = _PREFIX + use.encode("ascii") + b"\0" + transcript
        return HKDFExpand(SHA256(), KEY_BYTES, info).derive(self._pseudorandom_key)

    def mac(self, use: Use, transcript: bytes, message: bytes) -> bytes:
        """Return HMAC-SHA-256 of a message under the key for one use."""
        return hmac.digest(self.key(use, transcript), message, "sha256")

    def __repr__(self) -> str:
        return "KeySchedule(secret)"
