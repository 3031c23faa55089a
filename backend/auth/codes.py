"""Codes of a second factor: six digits by the clock (RFC 6238), and codes for who lost the device."""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Final

from pyotp import TOTP

STEP_SECONDS: Final = 30
MAX_CODE: Final = 32
NUM_RECOVERY_CODES: Final = 10
_SECRET_BYTES: Final = 20  # as long as SHA-1's value (RFC 4226, section 4, R6)
_WINDOW: Final = (-1, 0, 1)  # clocks differ, and people type slowly (RFC 6238, section 5.2)
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # no letter that is read as another
_GROUPS, _GROUP = 3, 5  # 15 characters of 31: 74 bits, more than a fast hash needs


def new_secret() -> bytes:
    """Return a fresh secret."""
    return secrets.token_bytes(_SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """Return a secret as people type it into a device, in base 32."""
    return base64.b32encode(secret).decode("ascii")


def enrolment_uri(secret: bytes, *, user: str, issuer: str) -> str:
    """Return what a device reads from a picture: ``otpauth://totp/...``."""
    return TOTP(secret_text(secret)).provisioning_uri(name=user, issuer_name=issuer)


def matching_step(secret: bytes, code: str, *, after: int, now: datetime) -> int | None:
    """Return the number of the 30 seconds that a code is for, or None.

    Args:
        secret: The user's.
        code: As :func:`plain_code` returned it.
        after: Number of the step whose code was used last; none up to it is taken again.
        now: The server's clock; one step before and behind it is taken as well.
    """
    codes = TOTP(secret_text(secret))
    here = int(now.timestamp()) // STEP_SECONDS
    found = None
    for offset in _WINDOW:  # all of them, always: how long it takes tells nothing
        step = here + offset
        is_same = hmac.compare_digest(codes.generate_otp(step), code)
        if is_same and step > after:
            found = step
    return found


def plain_code(typed: str) -> str:
    """Return a code without the spaces, hyphens and capitals that people put in."""
    return "".join(letter for letter in typed.lower() if letter.isascii() and letter.isalnum())


def new_recovery_codes() -> list[str]:
    """Return fresh codes for who loses the device, to be shown once."""
    return [_new_recovery_code() for _ in range(NUM_RECOVERY_CODES)]


def recovery_digest(code: str) -> bytes:
    """Return what is stored of a recovery code; it has 74 random bits, so no slow hash is needed."""
    return hashlib.sha256(b"trunkline/recovery-code/v1\0" + plain_code(code).encode()).digest()


def _new_recovery_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
