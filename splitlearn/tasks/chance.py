"""Repeatable chance: numbers drawn from a SHA-256 of what they are for. Torch-free.

The same on every platform, in every process and in any order of asking, which no generator with a state
gives.
"""

import hashlib
import random


def keyed_digest(purpose: str, *parts: int | str | bytes) -> bytes:
    """Return 32 bytes that depend on the purpose and on every part, its type and its length."""
    digest = hashlib.sha256(b"trunkline/chance/v1\0")
    for part in (purpose, *parts):
        raw = part if isinstance(part, bytes) else str(part).encode()
        digest.update(type(part).__name__.encode() + b"\0" + len(raw).to_bytes(8, "big") + raw)
    return digest.digest()


def keyed_fraction(purpose: str, *parts: int | str | bytes) -> float:
    """Return a number in [0, 1), with the 53 bits that a float holds."""
    return (int.from_bytes(keyed_digest(purpose, *parts)[:8], "big") >> 11) / (1 << 53)


def keyed_random(purpose: str, *parts: int | str | bytes) -> random.Random:
    """Return a generator of its own; only ``random()`` is promised to repeat in every version of Python."""
    seed = int.from_bytes(keyed_digest(purpose, *parts), "big")
    return random.Random(seed)  # noqa: S311 - repeatable on purpose, guards no secret
