"""Whole runs whose every message, before it is sealed, and every frame, after, is kept."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from splitlearn.link import Connect, Link
from splitlearn.protocol import SiloProtocol, TrunkProtocol
from splitlearn.simulation.federation import Lines
from splitlearn.tasks import IGNORED, SiloData, TokenRow
from splitlearn.training import SiloTrainer
from splitlearn.wire import Direction, Message, Outcome, decode_message
from tests.integration.conftest import VOCAB, Job, NewJob, silo_data


@dataclass
class Recorder:
    """Every message of every conversation, as encoded."""

    said: dict[tuple[str, Direction], list[bytes]] = field(default_factory=dict)

    def keep(self, silo: str, direction: Direction, encoded: bytearray) -> None:
        self.said.setdefault((silo, direction), []).append(bytes(encoded))

    def messages(self, silo: str, direction: Direction) -> list[Message]:
        return [decode_message(each, direction=direction)[0] for each in self.said[silo, direction]]

    def until_trained(self, silo: str) -> list[Message]:
        """All of one silo's messages, both ways: an evaluation, then its first training turn."""
        found: list[Message] = []
        for direction, last in (
            (Direction.SILO_TO_TRUNK, "TurnEnd"),
            (Direction.TRUNK_TO_SILO, "TurnResult"),
        ):
            messages = self.messages(silo, direction)
            evaluated, trained, *_ = (i for i, each in enumerate(messages) if type(each).__name__ == last)
            assert evaluated < trained
            found += messages[: trained + 1]
        return found


def recording(
    monkeypatch: pytest.MonkeyPatch,
    silo: type[SiloProtocol] = SiloProtocol,
    *,
    made_in: tuple[str, str] = ("splitlearn.simulation.federation", "splitlearn.simulation.trunk_side"),
) -> Recorder:
    """Let protocols report what they are about to seal: silos' and trunks', made in these two modules."""
    recorder = Recorder()

    class RecordedSilo(silo):  # type: ignore[valid-type, misc]
        def send(self, message: Message) -> None:
            super().send(message)
            recorder.keep(self.terms.silo_name, self._sends, self._outbox.kept[-1].encoded)

    class RecordedTrunk(TrunkProtocol):
        def send(self, message: Message) -> None:
            super().send(message)
            recorder.keep(self.terms.silo_name, self._sends, self._outbox.kept[-1].encoded)

    monkeypatch.setattr(f"{made_in[0]}.SiloProtocol", RecordedSilo)
    monkeypatch.setattr(f"{made_in[1]}.TrunkProtocol", RecordedTrunk)
    return recorder


def leaves(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield every field of a message, those of its records too, as ("Type.field", value)."""
    for each in fields(message):
        value = getattr(message, each.name)
        if isinstance(value, Outcome):
            yield from leaves(value)
        else:
            yield f"{type(message).__name__}.{each.name}", value


def sft_rows(seed: str, *, lengths: Sequence[int]) -> list[TokenRow]:
    """Rows of given lengths whose second half is the answer."""
    chance = random.Random(seed)
    rows = []
    for length in lengths:
        tokens = tuple(chance.randrange(3, VOCAB) for _ in range(length))
        rows.append(TokenRow(tokens, (IGNORED,) * (length // 2) + tokens[length // 2 :]))
    return rows


LENGTHS = [7, 12, 9, 4, 11, 6]


def data_of(name: str, *, text: str) -> SiloData:
    rows = sft_rows(f"{name} {text}", lengths=LENGTHS)
    return silo_data(name, rows, sft_rows(f"{name} {text} heldout", lengths=[5, 8, 3]))


ONE_STEP: dict[str, Any] = {"rounds": 1, "steps_per_round": 1, "batch_size": 3, "accumulation_steps": 2}


@dataclass
class Taken:
    """A run, its recording, and its frames on the line."""

    job: Job
    recorder: Recorder
    lines: "CountingLines"


class CountingLines(Lines):
    """Keeps every frame, sealed as it is, by who sent it."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.frames: dict[tuple[str, str], list[bytes]] = {}

    def dial(self, name: str) -> Connect:
        return self._kept(super().dial(name), (name, "silo"))

    def answer(self, name: str) -> Connect:
        return self._kept(super().answer(name), (name, "trunk"))

    def _kept(self, connect: Connect, who: tuple[str, str]) -> Connect:
        async def open_link() -> Link:
            return _Tapped(await connect(), self.frames.setdefault(who, []))

        return open_link


class _Tapped:
    def __init__(self, inner: Link, kept: list[bytes]) -> None:
        self._inner, self._kept = inner, kept

    async def send(self, frame: Any) -> None:
        self._kept.append(bytes(frame))
        await self._inner.send(frame)

    async def receive(self) -> Any:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


def run_recorded(
    new_job: NewJob,
    monkeypatch: pytest.MonkeyPatch,
    *data: SiloData,
    silo: type[SiloProtocol] = SiloProtocol,
    trainer: type[SiloTrainer] = SiloTrainer,
    **fields: Any,
) -> Taken:
    """Run a job on some data and return all that was said; a silo's parts may be replaced by a mutant's."""
    job = new_job("llama", *data, **{**ONE_STEP, **fields})
    recorder = recording(monkeypatch, silo)
    monkeypatch.setattr("splitlearn.simulation.federation.SiloTrainer", trainer)
    made: list[CountingLines] = []

    def lines(names: Sequence[str]) -> Lines:
        made.append(CountingLines(names))
        return made[0]

    job.run(make_lines=lines)
    return Taken(job, recorder, made[0])


Take = Callable[..., Taken]
