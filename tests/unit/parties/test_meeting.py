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
    SiloEvaluation,
    is_meeting,
    meeting_of,
)
from splitlearn.spec import JobSpec
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
    TurnEnd,
    TurnResult,
    TurnStart,
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

    def test_silos_meet_only_where_replicas_have_something_to_decide_or_to_add_up(self) -> None:
        replicas = {"schedule": "hierarchical", "replicas": 2}
        watched = {"every_rounds": 1, "patience_evaluations": 1}
        assert (SPEC.silos_meet, SPEC.meeting_evaluates) == (True, False)
        judged = job("a", "b", **replicas, evaluation=watched)
        assert (judged.silos_meet, judged.meeting_evaluates) == (True, True)
        for alone in (
            job("a", "b", "c", silo_blocks="averaged"),
            job("a", "b", evaluation=watched),
            job("a", "b", **replicas),
        ):
            assert (alone.silos_meet, alone.meeting_evaluates) == (False, False)


@dataclass
class OneNumber:
    """A trainer whose blocks are one number."""

    value: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)

    def load_state(self, tensors: Mapping[str, Tensor], *, keeps_best: bool = False) -> None:
        self.value = float(tensors["w"])
        if not keeps_best:
            self.best = {name: value for name, value in tensors.items() if name != "w"}

    def keep_best(self, round_number: int) -> None:
        self.best = {"best": torch.tensor(self.value), "of": torch.tensor(round_number)}

    def state(self) -> dict[str, Tensor]:
        return {"w": torch.tensor(self.value), **self.best}


@dataclass
class SaysItsNumber:
    """An evaluation whose loss is the blocks' number."""

    trainer: OneNumber

    async def run(self, _: TurnStart, *, send: Any, receive: Any) -> None:
        await send(TurnEnd(outcome=None, loss_sum=self.trainer.value, num_tokens=1))
        assert isinstance(await receive(), TurnResult)


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
    spec: JobSpec = SPEC
    round: int = ROUND
    party: asyncio.Task[None] = field(init=False)
    trunk: Exchange = field(init=False)

    def store(self, name: str) -> CheckpointStore:
        return CheckpointStore(self.folder / name, spec=self.spec, party="a", reserve_bytes=0)

    def sit_down(self, silo: Exchange, trunk: Exchange, compute: ComputeThread) -> None:
        for number in range(1, self.round + 1):
            self.store("trained").save({"w": torch.tensor(float(number))}, round_number=number)
        trainer = OneNumber()
        party = SiloAtMeeting(
            spec=self.spec,
            silo="a",
            trainer=cast("SiloTrainer", trainer),
            trained=self.store("trained"),
            averaged=self.store("averaged"),
            averaging=cast("SiloAveraging", AddsHundred(trainer)) if self.sums else None,
            evaluation=cast("SiloEvaluation", SaysItsNumber(trainer)),
            exchange=silo,
            compute=compute,
        )
        self.trunk, self.party = trunk, asyncio.create_task(party.run())

    async def hear(self, kind: type[Message]) -> Any:
        message = (await self.trunk.receive()).message
        assert isinstance(message, kind)
        return message

    @property
    def sums(self) -> bool:
        return self.spec.silo_blocks == "averaged"

    async def evaluate(self) -> float:
        await self.trunk.send(TurnStart(phase=Phase.EVAL, round=self.round, first_step=0, num_steps=0))
        loss: float = (await self.hear(TurnEnd)).loss_sum
        await self.trunk.send(TurnResult(voided=False))
        return loss

    async def end_round(self, number: int, *, is_best: bool = False) -> None:
        await self.trunk.send(RoundEnd(round=number, is_best=is_best))
        assert (await self.hear(RoundSaved)).round == number

    async def sum(self) -> None:
        await self.trunk.send(START)
        await self.trunk.send(SumEnd(averaged=True))
        await self.hear(SumDone)


def at_meeting(folder: Path, what: Any, *, spec: JobSpec = SPEC, round_number: int = ROUND) -> Seat:
    """Let a silo sit down, and the worker do what the test says."""
    seat = Seat(folder, spec, round_number)

    async def test() -> None:
        async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
            seat.sit_down(silos["a"], trunk["a"], compute)
            assert (await seat.hear(Ready)).last_round == round_number
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
            with pytest.raises(TrainingError, match="as cancelled before the silos were done"):
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


WATCHED = {"every_rounds": 1, "keep_best": True}
JUDGED = job("a", "b", schedule="hierarchical", replicas=2, evaluation=WATCHED)


class TestSiloWhereEvaluationsDecide:
    def test_evaluates_the_round_and_keeps_it_where_it_is_the_best(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            assert await seat.evaluate() == 2.0
            await seat.end_round(ROUND, is_best=True)
            await seat.trunk.send(CANCELLED)
            await seat.party

        left = at_meeting(tmp_path, meet, spec=JUDGED).store("averaged").load(ROUND)
        assert left == {"w": torch.tensor(2.0), "best": torch.tensor(2.0), "of": torch.tensor(2)}

    def test_evaluates_its_blocks_as_the_sum_left_them(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.sum()
            assert await seat.evaluate() == 102.0
            await seat.end_round(ROUND)
            await seat.trunk.send(CANCELLED)
            await seat.party

        spec = JobSpec.parse({**SPEC.model_dump(mode="json"), "evaluation": WATCHED})
        assert at_meeting(tmp_path, meet, spec=spec).store("averaged").load(ROUND) == {
            "w": torch.tensor(102.0)
        }

    def test_keeps_what_the_job_began_with_before_it_takes_up_the_first_round(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.end_round(0, is_best=True)
            assert await seat.evaluate() == 1.0
            await seat.end_round(1)
            await seat.trunk.send(CANCELLED)
            await seat.party

        left = at_meeting(tmp_path, meet, spec=JUDGED, round_number=1).store("averaged").load(1)
        assert left == {"w": torch.tensor(1.0), "best": torch.tensor(0.0), "of": torch.tensor(0)}

    def test_refuses_the_begin_after_it_has_taken_up_a_round(self, tmp_path: Path) -> None:
        async def meet(seat: Seat) -> None:
            await seat.evaluate()
            await seat.trunk.send(RoundEnd(round=0, is_best=True))
            with pytest.raises(ProtocolError, match="ends round 0 where this silo is at round 2"):
                await seat.party

        assert at_meeting(tmp_path, meet, spec=JUDGED).store("averaged").rounds() == []

    @pytest.mark.parametrize("number", [0, ROUND])
    def test_refuses_to_keep_a_best_that_the_job_does_not_ask_for(self, number: int, tmp_path: Path) -> None:
        patient = {"every_rounds": 1, "patience_evaluations": 1}
        spec = job("a", "b", schedule="hierarchical", replicas=2, evaluation=patient)

        async def meet(seat: Seat) -> None:
            await seat.trunk.send(RoundEnd(round=number, is_best=True))
            with pytest.raises(ProtocolError, match="does not ask for it"):
                await seat.party

        assert at_meeting(tmp_path, meet, spec=spec).store("averaged").rounds() == []


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
