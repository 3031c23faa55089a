"""How a party ends when another does, at the moments that are hard to hit in a whole job."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from splitlearn.errors import ProtocolError, StorageError, TrainingError
from splitlearn.exchange import Exchange
from splitlearn.parties import ComputeThread, SiloAveraging, SiloParty, TrunkParty
from splitlearn.tasks import BatchPlan, EvaluationPlan, Example, TokenRow
from splitlearn.training import CheckpointStore, SiloTrainer, TrunkTrainer
from splitlearn.wire import (
    Activations,
    Goodbye,
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Ready,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumStart,
    TurnStart,
)
from tests.unit.exchange.conftest import READY, run
from tests.unit.parties.conftest import HIDDEN, job, meeting

ROW = TokenRow((3, 4, 5), (3, 4, 5))


class GatedTrainer:
    """A silo's trainer whose forward of every micro-batch but the first waits for the test."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.log: list[str] = []

    def begin_step(self, step: int, **_: int) -> None:
        self.log.append(f"begin {step}")

    def bottom_forward(self, batch: Any, key: Any) -> Tensor:
        if key.micro_batch:
            assert self.gate.wait(20)
        return torch.zeros(batch.layout.num_valid, HIDDEN)

    def undo_step(self) -> None:
        self.log.append("undo")


def silo_party(trainer: GatedTrainer, exchange: Exchange, compute: ComputeThread, **fields: Any) -> SiloParty:
    return SiloParty(
        spec=job("a", "b", silo_blocks="local", **fields),
        silo="a",
        trainer=cast("SiloTrainer", trainer),
        training=BatchPlan([ROW], batch_size=1, seed=0, silo_name="a", pad_token_id=0),
        evaluation=EvaluationPlan([Example((ROW,), 0, b"")], batch_size=1, pad_token_id=0),
        exchange=exchange,
        compute=compute,
    )


async def next_of(exchange: Exchange, kind: type[Message]) -> Any:
    while not isinstance(message := (await exchange.receive()).message, kind):
        pass
    return message


async def seen(exchange: Exchange) -> None:
    """Wait until a message has come that the party has not taken."""
    while not exchange.has_received:  # noqa: ASYNC110 - the exchange wakes those who take, not those who look
        await asyncio.sleep(0.002)


class TestSiloThatComputes:
    """Two micro-batches a step: the trunk speaks while the second is on its way through the bottom."""

    async def overtaken(self, words: list[Message]) -> tuple[GatedTrainer, BaseException | None, list[Any]]:
        trainer, said = GatedTrainer(), []
        async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
            party = silo_party(trainer, silos["a"], compute, accumulation_steps=2)
            task = asyncio.create_task(party.run())
            await next_of(trunk["a"], Ready)
            turn = TurnStart(phase=Phase.TRAIN, round=1, first_step=0, num_steps=1)
            await trunk["a"].send(turn)
            said.append(await next_of(trunk["a"], Activations))
            for word in words:
                await trunk["a"].send(word)
            await seen(silos["a"])
            trainer.gate.set()
            if isinstance(words[-1], StepVoid):
                said.append(await next_of(trunk["a"], Activations))
                said.append(await next_of(trunk["a"], Activations))
                await trunk["a"].send(JobEnd(status=JobStatus.CANCELLED))
            said.append(await next_of(trunk["a"], Goodbye))
            [error] = await asyncio.gather(task, return_exceptions=True)
        return trainer, error, said

    def test_learns_that_the_job_has_ended(self) -> None:
        async def test() -> None:
            _, error, said = await self.overtaken([JobEnd(status=JobStatus.FAILED)])
            assert isinstance(error, TrainingError)
            assert "ended the job as failed in round 1" in str(error)
            assert said[-1] == Goodbye(reason=GoodbyeReason.FAILED)

        run(test())

    def test_learns_that_the_step_is_void_and_begins_it_again(self) -> None:
        async def test() -> None:
            trainer, _, said = await self.overtaken([StepVoid(step=0)])
            assert trainer.log == ["begin 0", "undo", "begin 0"]
            assert [message.micro_batch for message in said[:-1]] == [0, 0, 1]

        run(test())


class TestSiloThatIsAskedForASum:
    @pytest.mark.parametrize("start", [SumStart(round=1, step=0), SumStart(round=2, step=0)])
    def test_refuses_where_its_blocks_are_its_own(self, start: SumStart) -> None:
        async def test() -> None:
            async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
                task = asyncio.create_task(silo_party(GatedTrainer(), silos["a"], compute).run())
                await next_of(trunk["a"], Ready)
                await trunk["a"].send(start)
                assert await next_of(trunk["a"], Goodbye) == Goodbye(reason=GoodbyeReason.FAILED)
                with pytest.raises(ProtocolError, match="its blocks are local"):
                    await task

        run(test())

    def test_refuses_at_another_place_than_its_blocks_are_at(self) -> None:
        """A trunk that could name the place freely could sum the same values twice."""

        async def test() -> None:
            async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
                party = silo_party(GatedTrainer(), silos["a"], compute)
                party.averaging = cast("SiloAveraging", object())  # never asked
                task = asyncio.create_task(party.run())
                await next_of(trunk["a"], Ready)
                await trunk["a"].send(SumStart(round=1, step=3))
                with pytest.raises(
                    ProtocolError, match=r"in round 1 after 3 steps; this silo is in round 1 after 0"
                ):
                    await task

        run(test())


class LoadedTrainer:
    """A trunk's trainer that only takes over a checkpoint."""

    loaded = False

    def restore_best(self) -> None:
        """It is what is asked for."""

    def load_state(self, _: Any) -> None:
        self.loaded = True

    def state(self) -> dict[str, Tensor]:
        return {}


class FullStore:
    """The checkpoints of a job that is done but for the farewell."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def last_round(self) -> int:
        return self._rounds

    def load(self, _: int) -> dict[str, Tensor]:
        return {}

    def save(self, _: dict[str, Tensor], *, round_number: int) -> Path:
        return Path(f"round-{round_number}")


def trunk_party(exchanges: dict[str, Exchange], compute: ComputeThread, **fields: Any) -> TrunkParty:
    spec = job(*exchanges, **fields)
    return TrunkParty(
        spec=spec,
        trainer=cast("TrunkTrainer", LoadedTrainer()),
        exchanges=exchanges,
        compute=compute,
        checkpoints=cast("CheckpointStore", FullStore(spec.rounds)),
    )


class TestTrunk:
    def test_tells_the_others_when_a_silo_leaves(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), ComputeThread("worker") as compute:
                task = asyncio.create_task(trunk_party(trunk, compute).run())
                await silos["a"].send(READY)
                await silos["b"].send(READY)
                await next_of(silos["b"], TurnStart)
                await silos["b"].send(Goodbye(reason=GoodbyeReason.CANCELLED))
                assert await next_of(silos["a"], JobEnd) == JobEnd(status=JobStatus.FAILED)
                with pytest.raises(TrainingError, match=r"silo 'b' left the job \(cancelled\)"):
                    await task

        run(test())

    def test_tells_the_others_when_one_is_missing(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), ComputeThread("worker") as compute:
                task = asyncio.create_task(trunk_party(trunk, compute, patience_seconds=0.2).run())
                await silos["a"].send(READY)
                assert await next_of(silos["a"], JobEnd) == JobEnd(status=JobStatus.FAILED)
                with pytest.raises(TrainingError, match="waiting for silo 'b'"):
                    await task

        run(test())

    def test_tells_all_when_it_is_cancelled(self) -> None:
        async def test() -> None:
            async with meeting("a", "b") as (silos, trunk), ComputeThread("worker") as compute:
                task = asyncio.create_task(trunk_party(trunk, compute).run())
                for name in "ab":
                    await silos[name].send(READY)
                await next_of(silos["a"], TurnStart)
                task.cancel()
                for name in "ab":
                    assert await next_of(silos[name], JobEnd) == JobEnd(status=JobStatus.CANCELLED)
                with pytest.raises(asyncio.CancelledError):
                    await task

        run(test())

    def test_has_completed_a_job_whose_last_goodbye_is_lost(self) -> None:
        """Every party has saved every round: a silo that vanishes now takes nothing away."""

        async def test() -> None:
            async with meeting("a") as (silos, trunk), ComputeThread("worker") as compute:
                task = asyncio.create_task(trunk_party(trunk, compute, patience_seconds=0.2).run())
                await silos["a"].send(Ready(last_round=1, served=READY.served))
                end = JobEnd(status=JobStatus.COMPLETED, last_round=1)
                assert await next_of(silos["a"], JobEnd) == end
                await task

        run(test())

    def test_ends_after_a_round_when_asked_to(self) -> None:
        async def test() -> None:
            async with meeting("a") as (silos, trunk), ComputeThread("worker") as compute:
                party = trunk_party(trunk, compute, rounds=2)
                party.checkpoints = cast("CheckpointStore", FullStore(1))
                party.is_asked_to_stop = lambda: True
                task = asyncio.create_task(party.run())
                await silos["a"].send(Ready(last_round=1, served=READY.served))
                assert await next_of(silos["a"], JobEnd) == JobEnd(status=JobStatus.CANCELLED)
                await task
                assert party.last_round == 1

        run(test())


class SlowPublisher:
    """Publishes a round in more time than a word takes to a silo."""

    def __init__(self) -> None:
        self.published: list[tuple[int, Path]] = []

    async def __call__(self, round_number: int, folder: Path) -> None:
        await asyncio.sleep(0.1)
        self.published.append((round_number, folder))


class TestPublishing:
    async def committed_once(
        self, party: TrunkParty, silos: dict[str, Exchange], stack: AsyncExitStack
    ) -> None:
        """Commit round 1, which is then being published."""
        await stack.enter_async_context(party._table)
        await silos["a"].send(READY)
        await party._begin()
        commit = asyncio.create_task(party._commit(1))
        assert (await next_of(silos["a"], RoundEnd)).round == 1
        await silos["a"].send(RoundSaved(round=1))
        await commit

    def test_no_silo_saves_a_round_before_the_last_one_is_published(self) -> None:
        async def test() -> None:
            async with (
                meeting("a") as (silos, trunk),
                ComputeThread("w") as compute,
                AsyncExitStack() as stack,
            ):
                party, publisher = trunk_party(trunk, compute, rounds=2), SlowPublisher()
                party.publish = publisher
                await self.committed_once(party, silos, stack)
                commit = asyncio.create_task(party._commit(2))
                assert (await next_of(silos["a"], RoundEnd)).round == 2
                assert publisher.published == [(1, Path("round-1"))]
                commit.cancel()
                await asyncio.gather(commit, return_exceptions=True)

        run(test())

    def test_what_publishing_refuses_ends_the_party(self) -> None:
        async def refuse(_: int, __: Path) -> None:
            raise StorageError("the store is full")

        async def test() -> None:
            async with (
                meeting("a") as (silos, trunk),
                ComputeThread("w") as compute,
                AsyncExitStack() as stack,
            ):
                party = trunk_party(trunk, compute, rounds=2)
                party.publish = refuse
                await self.committed_once(party, silos, stack)
                with pytest.raises(StorageError, match="the store is full"):
                    await party._commit(2)

        run(test())
