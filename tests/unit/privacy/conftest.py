"""A federation of silos that sum, and a carrier between them and the server that a test can bend."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore
from splitlearn.privacy import SiloSum, SumRecord, SumServer
from splitlearn.wire import (
    Message,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    Words32,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOT = FederationRoot.generate()
TRUST = TrustStore(ROOT.public_key)
DIGEST = bytes(range(32))
JOB = "job-1"
NAMES = ("ada", "bert", "carl", "dora")
FRACTION_BITS = 24


def identity(
    name: str, *, root: FederationRoot = ROOT, kind: CertificateKind = CertificateKind.SILO
) -> Identity:
    """A certified silo."""
    key = SigningKey.generate()
    day = timedelta(days=1)
    certificate = root.issue(key.public_key, kind=kind, name=name, not_before=NOW - day, not_after=NOW + day)
    return Identity(certificate, key)


IDENTITIES = {name: identity(name) for name in (*NAMES, *(f"silo-{index}" for index in range(16)))}


def silo(name: str, folder: Path, roster: Sequence[str] = NAMES, **fields: Any) -> SiloSum:
    """One silo's side of the job's sums, with its record in ``folder``."""
    plain: dict[str, Any] = {
        "job": JOB,
        "spec_digest": DIGEST,
        "roster": roster,
        "identity": IDENTITIES[name],
        "trust": TRUST,
        "fraction_bits": FRACTION_BITS,
    }
    together = {**plain, **fields}
    record = SumRecord(folder / f"{name}.json", job=together["job"], spec_digest=together["spec_digest"])
    return SiloSum(**together, record=record)


class Member:
    """A silo as a program drives it: blocks of some tensors, and what it learned of the sum."""

    def __init__(self, side: SiloSum, tensors: Sequence[NDArray[np.float32]], num_tokens: int) -> None:
        self.side, self.num_tokens = side, num_tokens
        self.tensors = [(f"layer-{index}", values) for index, values in enumerate(tensors)]
        self.sent: list[Message] = []
        self.received: list[Message] = []
        self.total: Words32 | None = None
        self.gave_up = 0

    @property
    def num_words(self) -> int:
        return sum(values.size for _, values in self.tensors)

    def hear(self, message: Message) -> list[Message]:
        """Take the server's word, and return the answers."""
        self.received.append(message)
        answers = self._answers(message)
        self.sent += answers
        return answers

    def _answers(self, message: Message) -> list[Message]:
        match message:
            case SumStart():
                return [self.side.begin(message, num_tokens=self.num_tokens, num_words=self.num_words)]
            case SumRoster():
                return [self.side.consent(message, now=NOW)]
            case SumConsents():
                self.side.accept(message, self.tensors)
                return [self.side.next_part()]
            case SumTotal():
                self.side.take(message)
                return [self.side.next_part()] if self.side.has_parts else []
            case SumEnd():
                self.total = self.side.end(message)
                if self.total is not None:
                    return [self.side.finish()]
                self.gave_up += 1
                return [SumDone(averaged=False)]
            case _:
                raise AssertionError(message)

    @property
    def parts(self) -> list[SumPart]:
        return [message for message in self.sent if isinstance(message, SumPart)]


Bend = Callable[[str, Message], Message | None]
"""Changes a message on its way to a silo or from it; None swallows it."""


def as_it_is(_: str, message: Message) -> Message:
    return message


def carry(
    server: SumServer,
    members: dict[str, Member],
    *,
    to_silo: Bend = as_it_is,
    to_server: Bend = as_it_is,
    first: Sequence[tuple[str, Message]] | None = None,
) -> None:
    """Carry messages until nobody has anything to say; the order is first come, first served."""
    queue: deque[tuple[str, Message]] = deque(server.begin() if first is None else first)
    while queue:
        name, message = queue.popleft()
        bent = to_silo(name, message)
        if bent is None or name not in members:
            continue
        for answer in members[name].hear(bent):
            bent_answer = to_server(name, answer)
            if bent_answer is not None:
                queue += server.receive(name, bent_answer)  # type: ignore[arg-type]


def blocks(seed: int, *, sizes: Sequence[int] = (5, 7), scale: float = 0.1) -> list[NDArray[np.float32]]:
    """Tensors of normal values."""
    chance = np.random.default_rng(seed)
    return [(scale * chance.standard_normal(size)).astype(np.float32) for size in sizes]


def federation(folder: Path, names: Sequence[str] = NAMES, **fields: Any) -> dict[str, Member]:
    """Members with different blocks and weights."""
    return {
        name: Member(silo(name, folder, names, **fields), blocks(index), num_tokens=10 + 7 * index)
        for index, name in enumerate(names)
    }


def words_of(words: SumKey, /, **changes: Any) -> SumKey:
    """A member's words with some of them changed."""
    fields = {
        name: getattr(words, name)
        for name in ("certificate", "key", "num_tokens", "num_words", "next_attempt", "signature")
    }
    return SumKey(**{**fields, **changes})
