"""Links that break, repeat, delay or damage: the job ends as if nothing had happened, recomputing nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from splitlearn.errors import LinkError
from splitlearn.link import Connect, Link
from splitlearn.parties import StepDone
from splitlearn.simulation.federation import Lines
from splitlearn.simulation.results import SimulationResult
from splitlearn.wire import ENVELOPE_BYTES, Kind, Limits
from tests.integration.conftest import Heard, Job, NewJob, assert_same, silo_rows

Frame = bytes | bytearray | memoryview
Fault = Callable[[int, Frame], Sequence[Frame] | None]
"""What becomes of the n-th frame of a party (from 1, over all its connections): frames, or a break."""


class FaultyLines(Lines):
    """Applies a fault to what a silo's two ends send.

    Args:
        names: Silos.
        fault: What happens.
        victims: Whose links; None for all.
        ends: Which ends' frames are counted: "silo", "trunk".
        seconds_before_break: So long what was sent before has time to arrive; else it is lost as well.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        fault: Fault,
        victims: Sequence[str] | None = None,
        ends: Sequence[str] = ("silo", "trunk"),
        seconds_before_break: float = 0.0,
    ) -> None:
        super().__init__(names)
        self.seconds_before_break = seconds_before_break
        self._fault, self._ends = fault, ends
        self._victims = names if victims is None else victims
        self.sent: Counter[tuple[str, str]] = Counter()
        self.struck = 0

    def dial(self, name: str) -> Connect:
        return self._faulty(super().dial(name), name, "silo")

    def answer(self, name: str) -> Connect:
        return self._faulty(super().answer(name), name, "trunk")

    def _faulty(self, connect: Connect, name: str, end: str) -> Connect:
        if name not in self._victims or end not in self._ends:
            return connect

        async def open_link() -> Link:
            return _FaultyLink(await connect(), self, (name, end))

        return open_link

    def strike(self, who: tuple[str, str], frame: Frame) -> Sequence[Frame] | None:
        self.sent[who] += 1
        what = self._fault(self.sent[who], frame)
        self.struck += what is None or list(what) != [frame]
        return what


class _FaultyLink:
    def __init__(self, inner: Link, lines: FaultyLines, who: tuple[str, str]) -> None:
        self._inner, self._lines, self._who = inner, lines, who

    async def send(self, frame: Frame) -> None:
        frames = self._lines.strike(self._who, frame)
        if frames is None:
            await asyncio.sleep(self._lines.seconds_before_break)
            await self._inner.close()
            raise LinkError("the link broke")
        for each in frames:
            await self._inner.send(each)

    async def receive(self) -> Frame:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


def break_every(frames: int) -> Fault:
    return lambda number, frame: None if number % frames == 0 else [frame]


def repeat_every(frames: int) -> Fault:
    return lambda number, frame: [frame, bytes(frame)] if number % frames == 0 else [frame]


@pytest.fixture(scope="module")
def _undisturbed() -> dict[str, Any]:
    return {}


SHAPE: dict[str, Any] = {
    "rounds": 2,
    "steps_per_round": 2,
    "accumulation_steps": 2,
    "batch_size": 2,
    "patience_seconds": 8,
}


@pytest.fixture
def small_job(new_job: NewJob) -> Callable[[], Job]:
    return lambda: new_job("llama", silo_rows("a"), silo_rows("b", longest=5), **SHAPE)


@pytest.fixture
def expected(small_job: Callable[[], Job], _undisturbed: dict[str, Any]) -> dict[str, Any]:
    """What every party holds after a run without faults; made once."""
    if not _undisturbed:
        job = small_job()
        job.run()
        _undisturbed.update(job.everything())
    return _undisturbed


def run(job: Job, lines: Callable[[Sequence[str]], Lines]) -> tuple[SimulationResult, Heard]:
    heard = Heard(StepDone)
    return job.run(make_lines=lines, on_progress=heard), heard


def assert_each_step_once(heard: Heard) -> None:
    done = Counter((report.silo, report.step) for report in heard.reports)
    assert done == {(silo, step): 1 for silo in "ab" for step in range(4)}


class TestBrokenLinks:
    @pytest.mark.parametrize(("frames", "seconds"), [(4, 0.005), (11, 0.0)])
    def test_breaking_every_few_frames_changes_nothing(
        self, frames: int, seconds: float, small_job: Callable[[], Job], expected: dict[str, Any]
    ) -> None:
        job, made = small_job(), []

        def lines(names: Sequence[str]) -> Lines:
            made.append(FaultyLines(names, fault=break_every(frames), seconds_before_break=seconds))
            return made[0]

        result, heard = run(job, lines)

        assert_same(job.everything(), expected)
        assert_each_step_once(heard)
        assert made[0].struck >= 10
        assert sum(silo.resent_messages for silo in result.silos) > 0

    def test_breaking_inside_a_message_sends_it_again(
        self, small_job: Callable[[], Job], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Frames so small that a message takes several; the link breaks between two of one message."""
        limits = Limits(max_frame_bytes=2048)
        monkeypatch.setattr("splitlearn.protocol.conversation.Limits", lambda: limits)
        broken: list[int] = []

        def fault(number: int, frame: Frame) -> Sequence[Frame] | None:
            offset = int.from_bytes(bytes(frame)[56:60], "big")
            if number > 20 and len(broken) < 4 and offset > 0:
                broken.append(number)
                return None
            return [frame]

        job = small_job()
        result, heard = run(job, lambda names: FaultyLines(names, fault=fault, ends=["silo"]))

        assert len(broken) == 4
        assert sum(silo.resent_messages for silo in result.silos) >= 4
        assert_same(job.everything(), expected)
        assert_each_step_once(heard)

    def test_the_last_words_may_be_lost(self, small_job: Callable[[], Job], expected: dict[str, Any]) -> None:
        """The link of one silo breaks with each of the last frames that it would carry."""
        job = small_job()
        counted: list[FaultyLines] = []

        def counting(names: Sequence[str]) -> Lines:
            counted.append(FaultyLines(names, fault=lambda _, frame: [frame]))
            return counted[0]

        run(job, counting)
        last = {end: counted[0].sent["a", end] for end in ("silo", "trunk")}
        for end, number in last.items():
            again = small_job()

            def breaking(names: Sequence[str], end: str = end, number: int = number) -> Lines:
                fault: Fault = lambda count, frame: None if count == number else [frame]  # noqa: E731
                return FaultyLines(names, fault=fault, victims=["a"], ends=[end])

            run(again, breaking)
            assert_same(again.everything(), expected)


class TestRepeatedFrames:
    @pytest.mark.parametrize("frames", [3, 7])
    def test_end_the_session_and_no_more(
        self, frames: int, small_job: Callable[[], Job], expected: dict[str, Any]
    ) -> None:
        job = small_job()
        strike = 40
        fault = repeat_every(frames)
        _, heard = run(
            job,
            lambda names: FaultyLines(
                names, fault=lambda count, frame: fault(count, frame) if count < strike else [frame]
            ),
        )
        assert_same(job.everything(), expected)
        assert_each_step_once(heard)


class TestDelays:
    def test_change_nothing(self, small_job: Callable[[], Job], expected: dict[str, Any]) -> None:
        class Slow(Lines):
            def answer(self, name: str) -> Connect:
                inner = super().answer(name)

                async def late() -> Link:
                    await asyncio.sleep(0.2 if name == "a" else 0)
                    return await inner()

                return late

        job = small_job()
        _, heard = run(job, Slow)
        assert_same(job.everything(), expected)
        assert_each_step_once(heard)


PLACES = {
    "magic": 0,
    "kind": 4,
    "direction": 5,
    "replica": 7,
    "body_bytes": 11,
    "many-body_bytes": 8,
    "epoch": 15,
    "job_tag": 16,
    "round": 35,
    "step": 39,
    "counter": 47,
    "message_seq": 55,
    "fragment_offset": 59,
    "message_bytes": 63,
    "body": ENVELOPE_BYTES,
    "further": ENVELOPE_BYTES + 100,
    "tag": -1,
}


class Damage:
    """Flips one bit of every second frame of a kind, each time at another place.

    Args:
        kind: Which frames.
        breaking: Break the link, too, at the second sealed frame of every connection: there are more
            handshakes then.
    """

    def __init__(self, kind: Kind, *, breaking: bool = False) -> None:
        self._kind, self._breaking = kind, breaking
        self._places = list(PLACES.values())
        self._seen = 0
        self._sealed = 0

    def __call__(self, _: int, frame: Frame) -> Sequence[Frame] | None:
        self._sealed = self._sealed + 1 if frame[4] == Kind.SEALED else 0
        if self.is_done or (frame[4] != self._kind and not self._breaking):
            return [frame]
        if frame[4] != self._kind:
            return None if self._sealed == 2 else [frame]
        self._seen += 1
        if self._seen % 2:
            return [frame]
        damaged = bytearray(frame)
        damaged[self._places.pop(0) % len(frame)] ^= 0x10
        return [damaged]

    @property
    def is_done(self) -> bool:
        """Every place was damaged."""
        return not self._places


class TestDamage:
    """One bit flipped: the session ends, or never begins, and the next one repairs it."""

    @pytest.mark.parametrize(
        ("end", "kind"),
        [
            ("silo", Kind.SEALED),
            ("trunk", Kind.SEALED),
            ("silo", Kind.HELLO),
            ("trunk", Kind.REPLY),
            ("silo", Kind.CONFIRM),
        ],
    )
    def test_ends_a_session_and_no_more(
        self, end: str, kind: Kind, small_job: Callable[[], Job], expected: dict[str, Any]
    ) -> None:
        damage, job = Damage(kind, breaking=kind is not Kind.SEALED), small_job()

        _, heard = run(
            job,
            lambda names: FaultyLines(
                names, fault=damage, victims=["a"], ends=[end], seconds_before_break=0.005
            ),
        )

        assert damage.is_done
        assert_same(job.everything(), expected)
        assert_each_step_once(heard)
