"""Where the silos of all replicas meet after a round, and how a meeting ends before its end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from splitlearn.errors import ProtocolError, StorageError, TrainingError
from splitlearn.exchange import Exchange
from splitlearn.parties import (
    ComputeThread,
    MeetingParty,
    SiloAtMeeting,
    SiloAveraging,
    is_meeting,
    keeps_averages_apart,
    meeting_of,
)
from splitlearn.training import CheckpointStore, SiloTrainer
from splitlearn.wire import (
    Goodbye,
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Ready,
    RoundEnd,
    RoundSaved,
    SumDone,
    SumEnd,
    SumStart,
)
from tests.unit.exchange.conftest import run
from tests.unit.parties.conftest import job, meeting

ROUND, STEPS = 2, 10
SPEC = job("a", "b", "c", schedule="hierarchical", replicas=2, silo_blocks="averaged", steps_per_round=STEPS)
START = SumStart(round=ROUND, step=STEPS)
CANCELLED = JobEnd(status=JobStatus.CANCELLED)


class TestLayout:
    def test_gives_the_meeting_the_number_after_the_last_replica(self) -> None:
        assert [is_meeting(SPEC, number) for number in range(4)] == [False, False, True, False]

    def test_knows_none_where_there_is_one_trunk(self) -> None:
        spec = job("a", "b", "c", silo_blocks="averaged")
        assert meeting_of(spec) is None
        assert not any(is_meeting(spec, number) for number in range(3))

    def test_keeps_averages_apart_only_where_silos_meet(self) -> None:
        assert keeps_averages_apart(SPEC)
        assert not keeps_averages_apart(job("a", "b", "c", silo_blocks="averaged"))
        assert not keeps_averages_apart(job("a", "b", schedule="hierarchical", replicas=2))


@dataclass
class OneNumber:
    """A trainer whose blocks are one number."""

    value: float = 0.0

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.value = float(tensors["w"])

    def state(self) -> dict[str, Tensor]:
        return {"w": torch.tensor(self.value)}


@dataclass
class AddsHundred:
    """A sum after which the blocks are a hundred more, once the worker says that it is whole."""

    trainer: OneNumber

    async def run(self, _: SumStart, *, send: Any, receive: Any) -> None:
        assert isinstance(await receive(), SumEnd)
        self.trainer.value += 100
        await send(SumDone(averaged=True))


@dataclass
class Seat:
    """One silo at a meeting, and the worker's end of its conversation in the test's hand."""

    folder: Path
    party: asyncio.Task[None] = field(init=False)
    trunk: Exchange = field(init=False)

    def store(self, name: str) -> CheckpointStore:
        return CheckpointStore(self.folder / name, spec=SPEC, party="a", reserve_bytes=0)

    def sit_down(self, silo: Exchange, trunk: Exchange, compute: ComputeThread) -> None:
        for number in range(1, ROUND + 1):
            self.store("trained").save({"w": torch.tensor(float(number))}, round_number=number)
        trainer = OneNumber()
        party = SiloAtMeeting(
            spec=SPEC,
            silo="a",
            trainer=cast("SiloTrainer", trainer),
            trained=self.store("trained"),
            averaged=self.store("averaged"),
            averaging=cast("SiloAveraging", AddsHundred(trainer)),
            exchange=silo,
            compute=compute,
        )
        self.trunk, self.party = trunk, asyncio.create_task(party.run())

    async def hear(self, kind: type[Message]) -> Any:
        message = (await self.trunk.receive()).message
        assert isinstance(message, kind)
        return message

    async def sum(self) -> None:
        await self.trunk.send(START)
        await self.trunk.send(SumEnd(averaged=True))
        await self.hear(SumDone)


def at_meeting(folder: Path, what: Any) -> Seat:
    """Let a silo sit down, and the worker do what the test says."""
    seat = Seat(folder)

    async def test() -> None:
        async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
            seat.sit_down(silos["a"], trunk["a"], compute)
            assert (await seat.hear(Ready)).last_round == ROUND
            await what(seat)

    run(test())
    return seat


class TestSilo:
    def test_leaves_with_the_average_of_the_round_on_disk(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.sum()
            await seat.trunk.send(RoundEnd(round=ROUND))
            assert (await seat.hear(RoundSaved)).round == ROUND
            await seat.trunk.send(CANCELLED)
            await seat.party

        seat = at_meeting(tmp_path, meet)
        assert seat.store("averaged").load(ROUND) == {"w": torch.tensor(102.0)}
        assert seat.store("trained").load(ROUND) == {"w": torch.tensor(2.0)}

    def test_sums_anew_what_the_round_left_where_a_sum_is_begun_again(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.sum()
            await seat.sum()
            await seat.trunk.send(RoundEnd(round=ROUND))
            await seat.hear(RoundSaved)
            await seat.trunk.send(CANCELLED)
            await seat.party

        assert at_meeting(tmp_path, meet).store("averaged").load(ROUND) == {"w": torch.tensor(102.0)}

    def test_takes_an_end_before_the_average_for_a_failure(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.sum()
            await seat.trunk.send(CANCELLED)
            with pytest.raises(TrainingError, match="as cancelled before the silos had averaged"):
                await seat.party

        assert at_meeting(tmp_path, meet).store("averaged").rounds() == []

    @pytest.mark.parametrize(
        ("word", "sentence"),
        [
            (SumStart(round=ROUND + 1, step=STEPS), "this silo has trained up to round 2"),
            (SumStart(round=ROUND - 1, step=STEPS), "in round 1 .* this silo has trained up to round 2"),
            (SumStart(round=ROUND, step=STEPS - 1), "in round 2 after 9 steps; .* each has 10 steps"),
            (RoundEnd(round=ROUND), "ends round 2; summed was None"),
        ],
    )
    def test_refuses_what_is_of_another_place(self, word: Message, sentence: str, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.trunk.send(word)
            assert (await seat.hear(Goodbye)).reason is GoodbyeReason.FAILED
            with pytest.raises(ProtocolError, match=sentence):
                await seat.party

        at_meeting(tmp_path, meet)


class TestWorker:
    def test_names_the_silo_that_has_lost_the_round_and_commits_nothing(self) -> None:
        async def commit() -> None:
            pytest.fail("nothing was averaged")

        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk):
                spec = job("a", "b", schedule="hierarchical", replicas=2, silo_blocks="local")
                party = MeetingParty(spec=spec, round=ROUND, exchanges=trunk, commit=commit)
                for name, exchange in silos.items():
                    await exchange.send(
                        Ready(last_round=ROUND - (name == "b"), served=frozenset({Phase.TRAIN}))
                    )
                with pytest.raises(
                    StorageError, match="silo 'b' has no checkpoint after round 2, only up to 1"
                ):
                    await party.run()
                for exchange in silos.values():
                    assert (await exchange.receive()).message == JobEnd(status=JobStatus.FAILED)

        run(test())
