"""A federation of one root, two silos and two workers, and a way to let two of them meet."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from splitlearn.channel import (
    Entropy,
    Established,
    ResumePoint,
    SeenHandshakes,
    SiloHandshake,
    Terms,
    TrunkHandshake,
)
from splitlearn.identity import Certificate, CertificateKind, FederationRoot, Identity, SigningKey, TrustStore
from splitlearn.wire import Frame, FrameDecoder, Limits

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TERMS = Terms(
    job_id="radiology-1",
    replica=0,
    epoch=7,
    spec_digest=bytes(range(32)),
    silo_name="north",
    worker_name="gpu-0",
)


def as_frame(data: bytes | bytearray) -> Frame:
    (frame,) = FrameDecoder(Limits()).feed(data)
    return frame


def seeded_key(seed: int) -> SigningKey:
    return SigningKey.from_private_bytes(bytes([seed]) * 32)


@dataclass(frozen=True)
class Federation:
    """One root; identities are issued on demand, the same every time."""

    root: FederationRoot

    def identity(
        self,
        kind: CertificateKind,
        name: str,
        *,
        seed: int,
        not_before: datetime = NOW,
        not_after: datetime = NOW + timedelta(days=365),
    ) -> Identity:
        key = seeded_key(seed)
        certificate = self.root.issue(
            key.public_key, kind=kind, name=name, not_before=not_before, not_after=not_after, serial=seed
        )
        return Identity(certificate, key)

    @property
    def silo(self) -> Identity:
        return self.identity(CertificateKind.SILO, "north", seed=11)

    @property
    def worker(self) -> Identity:
        return self.identity(CertificateKind.WORKER, "gpu-0", seed=21)

    @property
    def trust(self) -> TrustStore:
        return TrustStore(self.root.public_key)


class Gullible(TrustStore):
    """Believes every certificate: what a dishonest party would run."""

    def verify(self, *_: object, **__: object) -> None:
        pass


@dataclass(kw_only=True)
class Side:
    """What one side brings to a handshake; every field may be replaced in a test."""

    identity: Identity
    trust: TrustStore
    terms: Terms = TERMS
    resume: ResumePoint = field(default_factory=ResumePoint)
    now: datetime = NOW
    seen: SeenHandshakes = field(default_factory=SeenHandshakes)
    entropy: Entropy | None = None

    def silo(self) -> SiloHandshake:
        return SiloHandshake(
            self.terms,
            identity=self.identity,
            trust=self.trust,
            resume=self.resume,
            now=self.now,
            seen=self.seen,
            entropy=self.entropy,
        )

    def trunk(self) -> TrunkHandshake:
        return TrunkHandshake(
            self.terms,
            identity=self.identity,
            trust=self.trust,
            resume=self.resume,
            now=self.now,
            seen=self.seen,
            entropy=self.entropy,
        )

    def but(self, **changes: object) -> "Side":
        return replace(self, seen=SeenHandshakes(), **changes)  # type: ignore[arg-type]  # field names only


@dataclass(frozen=True, kw_only=True)
class Stolen:
    """A certificate beside a key that is not its own, which an Identity would refuse to hold."""

    certificate: Certificate
    signing_key: SigningKey

    def as_identity(self) -> Identity:
        return cast("Identity", self)


@dataclass(frozen=True)
class Met:
    """Both ends of a finished handshake, and what crossed the wire."""

    silo: Established
    trunk: Established
    recorded: tuple[bytes, bytes, bytes]


@pytest.fixture
def federation() -> Federation:
    return Federation(FederationRoot(seeded_key(1)))


@pytest.fixture
def silo_side(federation: Federation) -> Side:
    return Side(identity=federation.silo, trust=federation.trust)


@pytest.fixture
def trunk_side(federation: Federation) -> Side:
    return Side(identity=federation.worker, trust=federation.trust)


def meet(silo_side: Side, trunk_side: Side) -> Met:
    silo, trunk = silo_side.silo(), trunk_side.trunk()
    hello = silo.hello()
    reply = trunk.receive_hello(as_frame(hello))
    confirm = silo.receive_reply(as_frame(reply))
    accepted = trunk.receive_confirm(as_frame(confirm))
    return Met(silo.established(), accepted, (hello, reply, confirm))


@pytest.fixture
def met(silo_side: Side, trunk_side: Side) -> Met:
    return meet(silo_side, trunk_side)
