"""Replicas of a trunk as Celery tasks of real workers, few or many: always the simulation's digits."""

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safetensors.torch import load_file

from splitlearn.parties import Evaluated, SiloAveraging, SiloEvaluation, StepDone
from splitlearn.parties.averaging import Receive, Send
from splitlearn.tasks import SiloData
from splitlearn.wire import TurnStart
from tests.integration.conftest import Heard, Job, NewJob, assert_same
from tests.integration.test_worker_process import Reached, is_state, join
from tests.integration.worker_stage import WORKER, Silo, Stage, staged

pytestmark = pytest.mark.slow
SECOND = "gpu-2"
PATIENCE_SECONDS = 240.0  # on a machine with other things to do
SHAPE: dict[str, Any] = {
    "schedule": "hierarchical",
    "replicas": 2,
    "rounds": 2,
    "steps_per_round": 4,
    "evaluation": {"every_rounds": 1, "batch_size": 5},
}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=2 * PATIENCE_SECONDS))


async def completed(stage: Stage, job_id: str, work: asyncio.Task[None]) -> None:
    """Wait for the end of a job, and of every silo's part in it."""
    is_over = is_state("completed", "failed", "cancelled")
    job = await stage.until(job_id, is_over, seconds=PATIENCE_SECONDS)
    assert job["state"] == "completed", job["reason"]
    await work


def assert_same_as_simulated(job: Job, silos: list[Silo]) -> None:
    """Every silo's state, and the average that it got, bit for bit."""
    job.run()
    trunk = {
        name.removeprefix("parameter/"): tensor
        for name, tensor in job.trunk().items()
        if name.startswith("parameter/")
    }
    assert trunk
    for silo in silos:
        assert_same(silo.final_state(job.spec), job.state(silo.name))
        assert silo.result is not None
        assert_same(load_file(silo.result), trunk)


def averaged_rounds(stage: Stage, name: str) -> list[int]:
    """Rounds whose replicas a worker has averaged, in order; also where the attempt came to nothing."""
    lines = (json.loads(line) for line in stage.log(name).splitlines() if line.startswith("{"))
    return [line["round"] for line in lines if line["event"] == "replicas_averaged"]


def test_take_turns_at_one_worker(new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path) -> None:
    job = new_job("llama", rows("clinic"), rows("bank", longest=5), **SHAPE)

    async def test(stage: Stage) -> None:
        job_id, silos, work = await join(stage, job)
        await completed(stage, job_id, work)
        # Round 1, round 2, and the evaluation of the last average, at each replica.
        assert stage.log().count('"event": "trunk_hosted"') == 6
        assert averaged_rounds(stage, WORKER) == [1, 2], "each round once, by one task"
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        with stage.worker():
            run(test(stage))


def test_of_two_workers_one_that_is_killed_in_mid_round_takes_only_its_silo_back(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    shape = {**SHAPE, "steps_per_round": 25}
    job = new_job("llama", rows("clinic"), rows("bank", longest=5), **shape)

    async def test(stage: Stage) -> None:
        reached = Reached(35)  # in the second round
        with stage.worker():
            with stage.worker(name=SECOND) as second:
                job_id, silos, work = await join(stage, job, at=reached)
                await reached.event.wait()
                second.signal(signal.SIGKILL)
            with stage.worker(name=SECOND):
                await completed(stage, job_id, work)
        assert "trunk_hosted" in stage.log(WORKER)
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


class TestAveragedBlocks:
    """The silos of both replicas meet after each round, and sum what they changed."""

    def job(self, new_job: NewJob, rows: Callable[..., SiloData], **fields: Any) -> Job:
        data = [rows("clinic"), rows("bank", longest=5), rows("office", num_rows=9)]
        return new_job("llama", *data, **{**SHAPE, "silo_blocks": "averaged", **fields})

    def test_of_replicas_that_take_turns_at_one_worker(
        self, new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
    ) -> None:
        job = self.job(new_job, rows, replica_moments="kept", replica_schedule="serial")

        async def test(stage: Stage) -> None:
            job_id, silos, work = await join(stage, job)
            await completed(stage, job_id, work)
            assert averaged_rounds(stage, WORKER) == [1, 2]
            assert stage.log().count('"event": "blocks_averaged"') == 2
            assert_same_as_simulated(job, silos)

        with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
            stage.register(job.folder)
            with stage.worker():
                run(test(stage))

    def test_of_replicas_at_two_workers_one_of_which_is_killed_in_a_sum(
        self, new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
    ) -> None:
        job = self.job(new_job, rows)

        async def test(stage: Stage) -> None:
            holding, steps = HeldSum(silo="bank", round_number=2), Heard(StepDone)
            with stage.worker() as first, stage.worker(name=SECOND) as second:
                job_id, silos, work = await join(stage, job, at=steps)
                for silo in silos:
                    silo.hold_sums = holding.for_silo(silo.name)
                await holding.reached.wait()
                hosted = await asyncio.to_thread(stage.job, job_id)
                [lease] = hosted["leases"]
                assert lease["replica"] == 2, "the meeting's"
                killed, other = (first, SECOND) if lease["worker"] == WORKER else (second, WORKER)
                killed.signal(signal.SIGKILL)
                holding.let_go.set()
                await completed(stage, job_id, work)
                assert averaged_rounds(stage, other)[-1] == 2
            both = [*averaged_rounds(stage, WORKER), *averaged_rounds(stage, SECOND)]
            assert sorted(both) == [1, 2, 2], "the round in which one was killed twice, the other once"
            taken = [(step.silo, step.step) for step in steps.reports]
            assert len(taken) == len(set(taken)) == 24, "no step is trained again"
            assert_same_as_simulated(job, silos)

        with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
            stage.register(job.folder)
            run(test(stage))

    @pytest.mark.long
    def test_of_a_job_that_is_retried_from_an_earlier_round(
        self, new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
    ) -> None:
        # So long a round that the job is cancelled before a replica has done its third: then round 1 is kept.
        job = self.job(new_job, rows, rounds=3, steps_per_round=60)

        async def test(stage: Stage) -> None:
            reached = Reached(2 * 60)
            job_id, silos, work = await join(stage, job, at=reached)
            await reached.event.wait()
            await asyncio.to_thread(stage.admin.call, "POST", f"/jobs/{job_id}/cancel")
            await stage.until(job_id, is_state("cancelled"), seconds=PATIENCE_SECONDS)
            await asyncio.to_thread(stage.admin.call, "POST", f"/jobs/{job_id}/retry", {"round": 1})
            await completed(stage, job_id, work)
            assert averaged_rounds(stage, WORKER) == [1, 2, 2, 3]
            assert_same_as_simulated(job, silos)

        with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
            stage.register(job.folder)
            with stage.worker():
                run(test(stage))


class TestWhereEvaluationsDecide:
    """The silos of both replicas meet after each round, and evaluate the average together."""

    # So high a rate that the held-out loss soon grows, as in test_best_round.
    SHAPE: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "rounds": 6,
        "steps_per_round": 3,
        "learning_rate": {"peak": 0.03},
        "evaluation": {"every_rounds": 1, "keep_best": True, "patience_evaluations": 2, "batch_size": 5},
    }

    def assert_same_as_simulated(self, job: Job, silos: list[Silo], told: Heard, *, best: range) -> None:
        """Result, last round, and every loss, bit for bit."""
        result = job.run()
        assert result.result_round in best
        last = result.last_round
        assert result.result_round is not None
        assert last == result.result_round + 2
        for silo, of_silo in zip(silos, result.silos, strict=True):
            state = silo.final_state(job.spec, last_round=last)
            assert_same(state, job.state(silo.name, last_round=last))
            assert silo.result is not None
            [file] = (job.work_dir / "silos" / silo.name / "result").glob("*.safetensors")
            whole, trunk = load_file(file), load_file(silo.result)
            assert trunk
            assert_same(trunk, {name: whole[name] for name in trunk})
            heard = {each.round: each.loss for each in told.reports if each.silo == silo.name}
            assert heard == {each.round: each.loss for each in of_silo.evaluations}

    @pytest.mark.long
    @pytest.mark.parametrize("silo_blocks", ["local", "averaged"])
    def test_of_replicas_that_take_turns_at_one_worker(
        self, silo_blocks: str, new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
    ) -> None:
        data = [rows("clinic"), rows("bank", longest=6), rows("office", longest=5)]
        evaluation = {**self.SHAPE["evaluation"], "before_training": False}
        fields = {**self.SHAPE, "evaluation": evaluation, "silo_blocks": silo_blocks}
        job, told = new_job("llama", *data, **fields), Heard(Evaluated)

        async def test(stage: Stage) -> None:
            job_id, silos, work = await join(stage, job, at=told)
            await completed(stage, job_id, work)
            self.assert_same_as_simulated(job, silos, told, best=range(1, 4))

        with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
            stage.register(job.folder)
            with stage.worker():
                run(test(stage))

    @pytest.mark.long
    def test_of_two_workers_one_of_which_is_killed_in_an_evaluation_what_the_job_began_with(
        self, new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
    ) -> None:
        ruinous = {"optimizer": {"kind": "sgd"}, "learning_rate": {"peak": 10.0}, "max_grad_norm": None}
        data = [rows("clinic"), rows("bank", longest=6)]
        job, told = new_job("llama", *data, **{**self.SHAPE, **ruinous}), Heard(Evaluated)

        async def test(stage: Stage) -> None:
            holding = HeldEvaluation(silo="bank", round_number=2)
            with stage.worker() as first, stage.worker(name=SECOND) as second:
                job_id, silos, work = await join(stage, job, at=told)
                for silo in silos:
                    silo.hold_evaluations = holding.for_silo(silo.name)
                await holding.reached.wait()
                hosted = await asyncio.to_thread(stage.job, job_id)
                [lease] = hosted["leases"]
                assert lease["replica"] == 2, "the meeting's"
                killed = first if lease["worker"] == WORKER else second
                killed.signal(signal.SIGKILL)
                holding.let_go.set()
                await completed(stage, job_id, work)
            both = [*averaged_rounds(stage, WORKER), *averaged_rounds(stage, SECOND)]
            assert sorted(both) == [1, 2, 2]
            self.assert_same_as_simulated(job, silos, told, best=range(1))

        with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
            stage.register(job.folder)
            run(test(stage))


class HeldEvaluation:
    """Holds one silo's evaluation of one round back, once."""

    def __init__(self, *, silo: str, round_number: int) -> None:
        self._silo, self._round = silo, round_number
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()

    def for_silo(self, name: str) -> Callable[[SiloEvaluation], SiloEvaluation]:
        def hold(evaluation: SiloEvaluation) -> SiloEvaluation:
            if name == self._silo:
                evaluation.run = partial(self._run, evaluation)  # type: ignore[method-assign]
            return evaluation

        return hold

    async def _run(
        self, evaluation: SiloEvaluation, turn: TurnStart, *, send: Send, receive: Receive
    ) -> None:
        if turn.round == self._round and not self.reached.is_set():
            self.reached.set()
            await self.let_go.wait()
        await SiloEvaluation.run(evaluation, turn, send=send, receive=receive)


class HeldSum:
    """Holds one silo's words back in one round, after all members have signed the roster and others' left."""

    def __init__(self, *, silo: str, round_number: int) -> None:
        self._silo, self._round = silo, round_number
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()

    def for_silo(self, name: str) -> Callable[[SiloAveraging], SiloAveraging]:
        def hold(averaging: SiloAveraging) -> SiloAveraging:
            if name == self._silo:
                averaging._send_parts = partial(self._send_parts, averaging)  # type: ignore[method-assign]
            return averaging

        return hold

    async def _send_parts(self, averaging: SiloAveraging, send: Send) -> None:
        if averaging.sums.roster.place.round == self._round and not self.reached.is_set():
            self.reached.set()
            await self.let_go.wait()
        await SiloAveraging._send_parts(averaging, send)
