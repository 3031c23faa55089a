"""Passwords: argon2id (RFC 9106), a few at a time, and as slow for a name that nobody has."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from backend.errors import UnavailableError

MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 256
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no letter that is read as another
_GROUPS, _GROUP = 5, 5  # 25 characters of 31: 123 bits
DEFAULT_PATIENCE_SECONDS: Final = 5.0


class Passwords:
    """Hashes and checks passwords.

    Args:
        memory_kib: Memory of one hash, KiB.
        passes: Passes over that memory.
        lanes: Parallel lanes.
        concurrency: Hashes computed at the same time; their memory is what an attacker could fill.
        patience_seconds: How long to wait for one of them to end.
    """

    def __init__(
        self,
        *,
        memory_kib: int,
        passes: int,
        lanes: int,
        concurrency: int,
        patience_seconds: float = DEFAULT_PATIENCE_SECONDS,
    ) -> None:
        self._hasher = PasswordHasher(
            time_cost=passes, memory_cost=memory_kib, parallelism=lanes, type=Type.ID
        )
        self._patience_seconds = patience_seconds
        self._slots = BoundedSemaphore(concurrency)
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """Return what may be stored.

        Raises:
            UnavailableError: Too many hashes are computed already.
        """
        with self._slot():
            return self._hasher.hash(password)

    def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether a password is right; takes as long when there is no such user (``None``).

        Raises:
            UnavailableError: Too many hashes are computed already.
        """
        with self._slot():
            try:
                right = self._hasher.verify(stored or self._nobody, password)
            except (VerificationError, InvalidHashError):
                return False
        return right and stored is not None

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._patience_seconds):
            raise UnavailableError("too many people are signing in at this moment", retry_after_seconds=5)
        try:
            yield
        finally:
            self._slots.release()


def generate_password() -> str:
    """Return a new password that can be read out: five groups of five characters, 123 bits."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)
