"""One secure sum of three silos from fixed keys and a fixed seed: what ``secure_sum.json`` holds."""

import tempfile
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore
from splitlearn.privacy import SiloSum, SumRecord, SumServer
from splitlearn.wire import (
    Message,
    SumConsents,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
)

NAMES = ("east", "north", "west")
JOB = "radiology-1"
SPEC_DIGEST = bytes(range(128, 160))
ROUND, STEP = 2, 40
FRACTION_BITS = 24
SEED = b"\x77" * 32
SIGNING = {name: bytes([index + 1]) * 32 for index, name in enumerate(NAMES)}
X25519 = {name: bytes([index + 101]) * 32 for index, name in enumerate(NAMES)}
TOKENS = {"east": 100, "north": 0, "west": 300}
CHANGES = {
    "east": [0.5, -0.25, 1e-7, 3.0],
    "north": [9.0, 9.0, 9.0, 9.0],
    "west": [-0.5, 0.125, 1e-7, -3.0],
}


def sum_vectors(
    root: FederationRoot, *, not_before: datetime, not_after: datetime, now: datetime
) -> dict[str, Any]:
    """Return the sum's inputs and every message of it."""
    identities = {
        name: _identity(root, name, serial, not_before, not_after) for serial, name in enumerate(NAMES, 3001)
    }
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            name: SiloSum(
                job=JOB,
                spec_digest=SPEC_DIGEST,
                roster=NAMES,
                identity=identities[name],
                trust=TrustStore(root.public_key),
                record=SumRecord(Path(folder) / name, job=JOB, spec_digest=SPEC_DIGEST),
                fraction_bits=FRACTION_BITS,
                private_key=X25519PrivateKey.from_private_bytes(X25519[name]),
                draw_seed=lambda size: SEED[:size],
            )
            for name in NAMES
        }
        return {
            "root": root.public_key.raw.hex(),
            "now": now.isoformat(),
            "job": JOB,
            "spec_digest": SPEC_DIGEST.hex(),
            "round": ROUND,
            "step": STEP,
            "fraction_bits": FRACTION_BITS,
            "seed": SEED.hex(),
            "silos": {name: _inputs(name) for name in NAMES},
            **_run(sides, now),
        }


def _inputs(name: str) -> dict[str, Any]:
    return {
        "signing_private": SIGNING[name].hex(),
        "x25519_private": X25519[name].hex(),
        "num_tokens": TOKENS[name],
        "changes": CHANGES[name],
    }


def _identity(
    root: FederationRoot, name: str, serial: int, not_before: datetime, not_after: datetime
) -> Identity:
    key = SigningKey.from_private_bytes(SIGNING[name])
    certificate = root.issue(
        key.public_key,
        kind=CertificateKind.SILO,
        name=name,
        not_before=not_before,
        not_after=not_after,
        serial=serial,
    )
    return Identity(certificate, key)


def _run(sides: dict[str, SiloSum], now: datetime) -> dict[str, Any]:
    server = SumServer(NAMES, round_number=ROUND, step=STEP)
    said: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
    seeds: dict[str, Any] = {}
    total, sums = "", set[str]()
    queue: deque[tuple[str, Message]] = deque(server.begin())
    while queue:
        name, message = queue.popleft()
        if isinstance(message, SumConsents):
            seeds[name] = message.seed.hex() if message.seed else None
        if isinstance(message, SumTotal):
            total = _hex(message.words)
        for answer in _answers(sides[name], message, now, sums):
            said[name] |= _shown(answer)
            queue += server.receive(name, answer)
    [words] = sums
    return {"messages": said, "sealed_seeds": seeds, "total": total, "sum": words}


def _answers(side: SiloSum, message: Message, now: datetime, sums: set[str]) -> list[Any]:
    match message:
        case SumStart():
            return [side.begin(message, num_tokens=TOKENS[side.name], num_words=4)]
        case SumRoster():
            return [side.consent(message, now=now)]
        case SumConsents():
            side.accept(message, [("blocks", np.array(CHANGES[side.name], np.float32))])
            return [side.next_part()]
        case SumTotal():
            side.take(message)
            return []
        case SumEnd():
            words = side.end(message)
            assert words is not None
            sums.add(_hex(words))
            return [side.finish()]
        case _:
            raise AssertionError(message)


def _shown(message: Any) -> dict[str, Any]:
    match message:
        case SumKey():
            return {
                "certificate": message.certificate.hex(),
                "key": message.key.hex(),
                "next_attempt": message.next_attempt,
                "words_signature": message.signature.hex(),
            }
        case SumPart():
            return {"masked": _hex(message.words)}
        case _ if hasattr(message, "signature"):
            return {"roster_signature": message.signature.hex()}
        case _:
            return {}


def _hex(words: Any) -> str:
    return str(words.astype("<u4").tobytes().hex())
