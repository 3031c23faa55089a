"""The root's fingerprint: what a silo pins, short enough to be read out over the telephone.

36 characters in nine groups of four: 160 bits of SHA-256 over the root's key, then a group that
detects a mistyped character. The alphabet (Crockford's base 32) has no i, l, o or u.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass

from splitlearn.identity.errors import FingerprintError
from splitlearn.identity.keys import PublicKey

FINGERPRINT_BYTES = 20
_CONTEXT = b"trunkline/root-fingerprint/v1\0"
_CHECK_CONTEXT = b"trunkline/root-fingerprint-check/v1\0"
_GROUP = 4
_BODY_CHARACTERS = 32
_RFC4648 = "abcdefghijklmnopqrstuvwxyz234567"
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_TO_CROCKFORD = str.maketrans(_RFC4648, _CROCKFORD)
_TO_RFC4648 = str.maketrans(_CROCKFORD, _RFC4648)
_MISREAD = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None, " ": None})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """160 bits that stand for one federation root.

    Attributes:
        digest: The first 20 bytes of SHA-256(context || root's public key).
    """

    digest: bytes

    @classmethod
    def of(cls, public_key: PublicKey) -> "Fingerprint":
        """Return the fingerprint of a root's key."""
        return cls(hashlib.sha256(_CONTEXT + public_key.raw).digest()[:FINGERPRINT_BYTES])

    @classmethod
    def parse(cls, text: str) -> "Fingerprint":
        """Read a fingerprint as typed by a person: case, spaces and hyphens do not matter.

        Raises:
            FingerprintError: Wrong length or character, or the check group does not fit.
        """
        typed = text.strip().lower().translate(_MISREAD)
        if len(typed) != _BODY_CHARACTERS + _GROUP or not set(typed) <= set(_CROCKFORD):
            raise FingerprintError(
                f"{text[:80]!r} is no fingerprint; it has nine groups of four of {_CROCKFORD}"
            )
        body, check = typed[:_BODY_CHARACTERS], typed[_BODY_CHARACTERS:]
        if not hmac.compare_digest(check, _check_group(body)):
            raise FingerprintError(f"the fingerprint {text[:80]!r} was mistyped; compare it group by group")
        return cls(base64.b32decode(body.translate(_TO_RFC4648).upper()))

    def check(self, public_key: PublicKey) -> None:
        """Refuse a root's key that has another fingerprint.

        Raises:
            FingerprintError: The key is that of another root, or was swapped on the way.
        """
        other = Fingerprint.of(public_key)
        if not hmac.compare_digest(self.digest, other.digest):
            raise FingerprintError(
                f"the federation root has fingerprint {other}, but {self} is pinned; ask who invited you"
            )

    def __str__(self) -> str:
        body = base64.b32encode(self.digest).decode("ascii").lower().translate(_TO_CROCKFORD)
        text = body + _check_group(body)
        return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _check_group(body: str) -> str:
    digest = hashlib.sha256(_CHECK_CONTEXT + body.encode("ascii")).digest()
    return base64.b32encode(digest).decode("ascii").lower().translate(_TO_CROCKFORD)[:_GROUP]
