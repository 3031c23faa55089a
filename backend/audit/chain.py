"""The hash chain of the audit: pure functions, shared by who appends and by who verifies.

Normative in ``docs/security.md``. ``H`` is SHA-256, ``||`` joins bytes, numbers are big-endian::

    content(n) = H("trunkline/audit-row/v1" 00 || canonical JSON of row n)
    digest(0)  = H("trunkline/audit-genesis/v1" 00 || the federation root's public key)
    digest(n)  = H("trunkline/audit-link/v1" 00 || digest(n-1) || u64 n || content(n))
    head(n)    = u64 n || digest(n) || u64 seconds since 1970, signed in context trunkline/audit-head/v1

A row hangs on the chain by the digest of its content alone, so that a reader who may not see the content
can still be shown that the row is there. The salt in the content keeps it from being guessed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from splitlearn.identity import Certificate, Context, SigningKey
from splitlearn.identity.fields import unix_seconds

DIGEST_BYTES: Final = 32
SALT_BYTES: Final = 16
_GENESIS: Final = b"trunkline/audit-genesis/v1\0"
_ROW: Final = b"trunkline/audit-row/v1\0"
_LINK: Final = b"trunkline/audit-link/v1\0"


def canonical(value: Any) -> bytes:
    """Return the one encoding of a JSON value: sorted keys, no white space, ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def moment_text(moment: datetime) -> str:
    """Return a moment as rows write it: UTC, always with microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def genesis(root_public_key: bytes) -> bytes:
    """Return what the first row follows: no row of one federation fits into another's chain."""
    return hashlib.sha256(_GENESIS + root_public_key).digest()


def content_digest(content: Mapping[str, Any]) -> bytes:
    """Return the digest of a row's content."""
    return hashlib.sha256(_ROW + canonical(content)).digest()


def link(before: bytes, number: int, content: bytes) -> bytes:
    """Return the digest of the chain that ends with this row.

    Args:
        before: The chain's digest up to the row before.
        number: The row's number, from 1.
        content: The digest of the row's content.
    """
    return hashlib.sha256(_LINK + before + number.to_bytes(8, "big") + content).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends, and the federation's word for it.

    Attributes:
        number: Of the newest row; 0 for none.
        digest: Of the chain up to there.
        signed_at: When, by the server's clock; whole seconds count.
        certificate: The root's word for the spec-signer's key.
        signature: Over :meth:`statement`.
    """

    number: int
    digest: bytes
    signed_at: datetime
    certificate: Certificate
    signature: bytes

    def verify(self) -> None:
        """Check the signature against the certificate's key; who signed that is the caller's to check.

        Raises:
            SignatureError: Made by another key, or of another head.
        """
        self.certificate.public_key.verify(Context.AUDIT_HEAD, self.statement(), self.signature)

    def statement(self) -> bytes:
        """Return what is signed."""
        return statement(self.number, self.digest, self.signed_at)


def statement(number: int, digest: bytes, signed_at: datetime) -> bytes:
    """Return what a head's signature is made over."""
    return number.to_bytes(8, "big") + digest + unix_seconds(signed_at).to_bytes(8, "big")


def sign(key: SigningKey, number: int, digest: bytes, signed_at: datetime) -> bytes:
    """Return the signature of a head."""
    return key.sign(Context.AUDIT_HEAD, statement(number, digest, signed_at))
