"""Opaque tokens: 256 random bits after a prefix that says whose they are; only digests are stored."""

import hashlib
import secrets
from enum import StrEnum
from typing import Final

MAX_TOKEN: Final = 64


class TokenPrefix(StrEnum):
    """First characters of a token: found by secret scanners, and the first look-up needs no guess."""

    SESSION = "tks_"
    API = "tka_"
    PARTY = "tkp_"


def new_token(prefix: TokenPrefix) -> str:
    """Return a fresh token, to be shown once."""
    return prefix + secrets.token_urlsafe(32)


def token_digest(token: str) -> bytes:
    """Return what is stored of a token; it has 256 random bits, so no salt and no slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()
