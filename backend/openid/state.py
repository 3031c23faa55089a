"""What a browser keeps while it is at the provider: sealed, so that nothing has to be written down here.

A cookie that only the browser which began has; the state in the provider's answer must be the one in it. It
is ``JSON || HMAC-SHA-256(key, context || JSON)`` in base 64. A state that was used is remembered until its
cookie's time is over.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.openid.errors import SignInNotBegunError

LIFE: Final = timedelta(minutes=10)
_CONTEXT: Final = b"trunkline/openid-state/v1\0"
_MAC_BYTES: Final = 32
_MAX_TEXT: Final = 1024


class BegunSignIn(BaseModel):
    """A sign-in under way.

    Attributes:
        state: Comes back with the provider's answer.
        nonce: Comes back inside the provider's token.
        verifier: Shows the provider that who exchanges the code is who began (PKCE).
        expires_at: Seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: str
    nonce: str
    verifier: str
    expires_at: int

    @classmethod
    def begin(cls, *, now: datetime) -> "BegunSignIn":
        """Return a fresh one."""
        return cls(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            expires_at=int((now + LIFE).timestamp()),
        )

    @property
    def challenge(self) -> str:
        """What the provider is shown of the verifier (RFC 7636, section 4.2, S256)."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")

    def seal(self, key: bytes) -> str:
        """Return it as the browser keeps it."""
        body = self.model_dump_json().encode()
        return base64.urlsafe_b64encode(body + _mac(key, body)).decode("ascii")


def open_sealed(text: str | None, key: bytes, *, state: str, now: datetime) -> BegunSignIn:
    """Return what the browser kept, if the answer belongs to it.

    Raises:
        SignInNotBegunError: Nothing, not ours, another sign-in's, or too old.
    """
    begun = _open(text or "", key)
    if begun is None or not hmac.compare_digest(begun.state.encode(), state.encode()):
        raise SignInNotBegunError("this browser did not begin the sign-in that the provider's answer is for")
    if now.timestamp() >= begun.expires_at:
        raise SignInNotBegunError(f"the sign-in took longer than {int(LIFE.total_seconds())} s")
    return begun


def _open(text: str, key: bytes) -> BegunSignIn | None:
    try:
        raw = base64.b64decode(text[:_MAX_TEXT], altchars=b"-_", validate=True)
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        return BegunSignIn.model_validate_json(body) if hmac.compare_digest(mac, _mac(key, body)) else None
    except (binascii.Error, ValidationError, ValueError):
        return None


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + body, hashlib.sha256)
