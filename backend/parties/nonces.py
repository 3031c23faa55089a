"""Log-in nonces: handed out without writing anything, so that nobody can fill the database with them.

A nonce is ``issued_at u64 || 16 random bytes || HMAC-SHA-256(key, audience || both)``. Only a nonce that
was used with a right signature is written down, until it would have expired.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.db.models import UsedNonce
from backend.db.statements import insert_unless_there
from backend.parties.errors import NonceRefusedError

_BODY_BYTES: Final = 24
_MAC_BYTES: Final = 32


def make_nonce(key: bytes, *, audience: str, now: datetime) -> str:
    """Return a fresh nonce."""
    body = int(now.timestamp()).to_bytes(8, "big") + secrets.token_bytes(_BODY_BYTES - 8)
    return base64.urlsafe_b64encode(body + _mac(key, audience, body)).decode("ascii").rstrip("=")


def check_nonce(nonce: str, key: bytes, *, audience: str, now: datetime, life_seconds: int) -> None:
    """Refuse a nonce that this server did not make, or not lately.

    Raises:
        NonceRefusedError: Says which.
    """
    try:
        raw = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
    if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, _mac(key, audience, body)):
        raise NonceRefusedError("the nonce is not one that this server gave")
    age = int(now.timestamp()) - int.from_bytes(body[:8], "big")
    if age > life_seconds:
        raise NonceRefusedError(f"the nonce is {age} s old; it may be {life_seconds} s")


def spend_nonce(session: Session, nonce: str, *, now: datetime, life_seconds: int) -> None:
    """Write a nonce down as used, and forget the expired ones.

    Raises:
        NonceRefusedError: It was used before.
    """
    # What another transaction is forgetting is left to it: two that wait for each other are a deadlock.
    expired = select(UsedNonce.digest).where(UsedNonce.expires_at < now).with_for_update(skip_locked=True)
    session.execute(delete(UsedNonce).where(UsedNonce.digest.in_(expired)))
    digest = hashlib.sha256(nonce.encode()).digest()
    expires_at = now + timedelta(seconds=life_seconds + 1)
    if not insert_unless_there(session, UsedNonce, digest=digest, expires_at=expires_at):
        raise NonceRefusedError("the nonce was used before")


def _mac(key: bytes, audience: str, body: bytes) -> bytes:
    return hmac.digest(key, audience.encode() + b"\0" + body, hashlib.sha256)
