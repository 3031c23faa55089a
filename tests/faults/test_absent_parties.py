"""Parties that are silent, leave, are not who they say, and strangers that knock at the worker's door."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from splitlearn.channel import Terms
from splitlearn.errors import DataError, IdentityError, LinkError, TrainingError
from splitlearn.identity import Certificate, FederationRoot, Identity, TrustStore
from splitlearn.link import Connect, Link, memory_pair
from splitlearn.parties import Progress, StepDone
from splitlearn.protocol import SiloProtocol
from splitlearn.simulation import roster
from splitlearn.simulation.federation import Lines
from splitlearn.spec import JobSpec
from splitlearn.wire import Codec, Direction, Envelope, Kind, job_tag
from tests.integration.conftest import Job, NewJob, assert_same, silo_rows

PATIENCE_SECONDS = 1.0
SHAPE: dict[str, Any] = {"rounds": 1, "steps_per_round": 2, "batch_size": 2}


@pytest.fixture
def prepare(new_job: NewJob) -> Callable[..., Job]:
    def build(**fields: Any) -> Job:
        return new_job("llama", silo_rows("a"), silo_rows("b"), **{**SHAPE, **fields})

    return build


@pytest.fixture
def at_most_soon() -> Iterator[None]:
    """The whole of it takes no longer than patience, some goodbyes, and the work itself."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


class SilentLines(Lines):
    """Silo b connects, but not a word of it arrives."""

    def dial(self, name: str) -> Connect:
        inner = super().dial(name)
        return inner if name != "b" else self._into_nowhere(inner)

    def _into_nowhere(self, inner: Connect) -> Connect:
        async def dial() -> Link:
            await inner()
            return memory_pair()[0]

        return dial


class UnreachableLines(Lines):
    """Nobody can be dialled by silo b."""

    def dial(self, name: str) -> Connect:
        return super().dial(name) if name != "b" else self._refused

    async def _refused(self) -> Link:
        raise LinkError("no route to host")


@pytest.mark.usefixtures("at_most_soon")
class TestSilentSilo:
    @pytest.mark.parametrize("lines", [SilentLines, UnreachableLines])
    def test_ends_the_job_after_patience_by_name(self, lines: type[Lines], prepare: Any) -> None:
        job = prepare(patience_seconds=PATIENCE_SECONDS)
        with pytest.raises(
            (TrainingError, LinkError), match=r"silo 'b'.*patience_seconds|patience_seconds.*silo 'b'"
        ):
            job.run(make_lines=lines)


@pytest.mark.usefixtures("at_most_soon")
class TestLeavingSilo:
    @pytest.mark.parametrize("schedule", ["client-batching", "serial"])
    def test_ends_the_job_for_everybody_with_its_reason(self, schedule: str, prepare: Any) -> None:
        def fail(progress: Progress) -> None:
            if isinstance(progress, StepDone) and progress.silo == "b":
                raise DataError("data.csv line 7 of silo 'b' is gone")

        with pytest.raises(DataError, match="line 7 of silo 'b'"):
            prepare(schedule=schedule, patience_seconds=60).run(on_progress=fail)


def other_root(who: str) -> Callable[[JobSpec], roster.Roster]:
    """Enrol a job whose silo b, or whose worker, was certified by another federation's root."""
    enrol = roster.enrol

    def mixed(spec: JobSpec) -> roster.Roster:
        ours, theirs = enrol(spec), enrol(spec)
        if who == "worker":
            return replace(ours, worker=theirs.worker)
        return replace(ours, silos={**ours.silos, "b": theirs.silos["b"]})

    return mixed


class Gullible(TrustStore):
    """Believes every certificate, its own first."""

    def __init__(self) -> None:
        super().__init__(FederationRoot.generate().public_key)

    def verify(self, certificate: Certificate, **_: Any) -> None:
        """Nothing is refused."""


class CarelessSilo(SiloProtocol):
    """A program that does not check itself what it is."""

    def __init__(self, terms: Terms, *, identity: Identity, trust: TrustStore, **settings: Any) -> None:
        trust = Gullible() if terms.silo_name == "b" else trust
        super().__init__(terms, identity=identity, trust=trust, **settings)


@pytest.mark.usefixtures("at_most_soon")
class TestWrongIdentity:
    def test_a_silo_that_the_root_did_not_certify_notices_it_itself(
        self, prepare: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitlearn.simulation.federation.enrol", other_root("b"))
        with pytest.raises(IdentityError, match=r"silo 'b' is not signed by the pinned root"):
            prepare(patience_seconds=60).run()

    def test_one_that_does_not_care_is_refused_by_the_worker_and_missed(
        self, prepare: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitlearn.simulation.federation.enrol", other_root("b"))
        monkeypatch.setattr("splitlearn.simulation.federation.SiloProtocol", CarelessSilo)
        with pytest.raises((TrainingError, LinkError), match=r"silo 'b'.*last refused: .*root"):
            prepare(patience_seconds=PATIENCE_SECONDS).run()

    def test_a_worker_of_another_root_is_refused_at_once(
        self, prepare: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitlearn.simulation.federation.enrol", other_root("worker"))
        with pytest.raises(IdentityError, match="root"):
            prepare(patience_seconds=60).run()


def _envelope(kind: Kind, *, body_bytes: int, **fields: Any) -> bytes:
    return Envelope(
        kind=kind,
        direction=Direction.SILO_TO_TRUNK,
        body_bytes=body_bytes,
        epoch=1,
        job_tag=job_tag("job"),
        **fields,
    ).pack()


def foreign_hello(spec: JobSpec) -> bytes:
    """Silo a, as certified by another root, knocks with everything else in order."""
    theirs = roster.enrol(spec)
    silo = SiloProtocol(
        theirs.terms["a"],
        identity=theirs.silos["a"],
        trust=theirs.trust,
        codec=Codec.FP32,
    )
    silo.connection_made(datetime.now(tz=UTC))
    return bytes(silo.data_to_send()[0])


STRANGERS: dict[str, Callable[[JobSpec], list[bytes]]] = {
    "garbage": lambda _: [b"\x16\x03\x01 hello there, is this https?" * 9],
    "nothing": lambda _: [],
    "half-an-envelope": lambda _: [b"TRK1\x01"],
    "sealed-frame-first": lambda _: [_envelope(Kind.SEALED, body_bytes=32, message_bytes=16) + bytes(32)],
    "confirm-first": lambda _: [_envelope(Kind.CONFIRM, body_bytes=248) + bytes(248)],
    "reply": lambda _: [_envelope(Kind.REPLY, body_bytes=1343) + bytes(1343)],
    "huge": lambda _: [_envelope(Kind.SEALED, body_bytes=2**32 - 1)],
    "hello-twice": lambda spec: [foreign_hello(spec)] * 2,
    "hello-then-garbage": lambda spec: [
        foreign_hello(spec),
        _envelope(Kind.CONFIRM, body_bytes=248) + bytes(248),
    ],
}


class KnockedAtLines(Lines):
    """Before silo a is answered, every stranger knocks and goes away."""

    def __init__(self, names: Sequence[str], *, spec: JobSpec) -> None:
        super().__init__(names)
        self.waiting = [stranger(spec) for stranger in STRANGERS.values()]

    def answer(self, name: str) -> Connect:
        inner = super().answer(name)

        async def knocked() -> Link:
            if name != "a" or not self.waiting:
                return await inner()
            near, far = memory_pair()
            for frame in self.waiting.pop():
                await far.send(frame)
            return _Hasty(near)

        return knocked


class _Hasty:
    """A link whose other end is gone once its frames are read."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def send(self, frame: Any) -> None:
        await self._inner.send(frame)

    async def receive(self) -> Any:
        if not self._inner._incoming.frames:
            raise LinkError("the stranger has gone")
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


class TestStrangers:
    def test_are_turned_away_and_hurt_nothing(self, prepare: Any) -> None:
        quiet, knocked_at = prepare(), prepare()
        quiet.run()
        made: list[KnockedAtLines] = []

        def lines(names: Sequence[str]) -> Lines:
            made.append(KnockedAtLines(names, spec=knocked_at.spec))
            return made[0]

        knocked_at.run(make_lines=lines)

        assert made[0].waiting == []
        assert_same(knocked_at.everything(), quiet.everything())
