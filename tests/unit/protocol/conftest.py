"""A federation of one silo and one worker, and the plain ways to let them talk."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from splitlearn.channel import Terms
from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore
from splitlearn.protocol import SERVED_PHASES, Conversation, Position, SiloProtocol, TrunkProtocol
from splitlearn.wire import ENVELOPE_BYTES, Codec, Envelope, Limits, Phase

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TERMS = Terms(
    job_id="job-1",
    replica=0,
    epoch=1,
    spec_digest=bytes(32),
    silo_name="north",
    worker_name="worker-1",
)
ROOT = FederationRoot.generate()
TRUST = TrustStore(ROOT.public_key)
SMALL_FRAMES = Limits(max_frame_bytes=1536, max_message_bytes=1 << 16)


def identity(kind: CertificateKind, name: str) -> Identity:
    key = SigningKey.generate()
    certificate = ROOT.issue(
        key.public_key,
        kind=kind,
        name=name,
        not_before=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=1),
    )
    return Identity(certificate, key)


SILO = identity(CertificateKind.SILO, "north")
WORKER = identity(CertificateKind.WORKER, "worker-1")


class Pair:
    """Both sides, and a link between them that the test pumps, drops and reconnects."""

    def __init__(
        self,
        *,
        window: int = 16,
        limits: Limits = SMALL_FRAMES,
        served_phases: frozenset[Phase] = SERVED_PHASES,
    ) -> None:
        how: dict[str, Any] = {"limits": limits, "window": window, "served_phases": served_phases}
        self.silo = SiloProtocol(TERMS, identity=SILO, trust=TRUST, codec=Codec.FP32, **how)
        self.trunk = TrunkProtocol(TERMS, identity=WORKER, trust=TRUST, codec=Codec.FP32, **how)

    @property
    def now(self) -> datetime:
        return NOW

    def connect(self) -> None:
        self.silo.connection_made(NOW)
        self.trunk.connection_made(NOW)

    def drop(self) -> None:
        self.silo.connection_lost()
        self.trunk.connection_lost()

    def pump(self) -> None:
        """Carry frames both ways until nothing is left to carry."""
        while True:
            to_trunk, to_silo = self.silo.data_to_send(), self.trunk.data_to_send()
            if not to_trunk and not to_silo:
                return
            for frame in to_trunk:
                self.trunk.receive_data(frame)
            for frame in to_silo:
                self.silo.receive_data(frame)


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    pair.pump()
    pair.silo.events()
    pair.trunk.events()
    return pair


@pytest.fixture
def fresh_silo() -> Callable[[], SiloProtocol]:
    return lambda: Pair().silo


@pytest.fixture
def break_rules() -> Callable[[Conversation], None]:
    """Make one side forget the rules, as a hostile program would."""

    def lawless(side: Conversation) -> None:
        side._rules = SimpleNamespace(send=lambda _: Position())  # type: ignore[assignment]

    return lawless


@pytest.fixture
def move_step() -> Callable[..., None]:
    """Make one side believe that it is at another step."""

    def move(side: Conversation, *, by: int) -> None:
        assert side._rules._ledger is not None
        side._rules._ledger.step += by

    return move


@pytest.fixture
def change() -> Callable[[bytes, str], bytes]:
    """Return a frame whose envelope was changed in one field on the way."""

    def changed(frame: bytes, field: str) -> bytes:
        envelope = Envelope.unpack(frame[:ENVELOPE_BYTES])
        moved = replace(envelope, **{field: getattr(envelope, field) + 1})
        return moved.pack() + bytes(frame[ENVELOPE_BYTES:])

    return changed


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    return Pair
