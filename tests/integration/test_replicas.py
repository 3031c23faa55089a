"""Replicas of a trunk as Celery tasks of real workers, few or many: always the simulation's digits."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from splitlearn.tasks import SiloData
from tests.integration.conftest import Job, NewJob, assert_same
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
        last = silo.folder / "checkpoints" / f"round-{job.spec.rounds:08d}" / "state.safetensors"
        assert_same(load_file(last), job.state(silo.name))
        assert silo.result is not None
        assert_same(load_file(silo.result), trunk)


def test_take_turns_at_one_worker(new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path) -> None:
    job = new_job("llama", rows("clinic"), rows("bank", longest=5), **SHAPE)

    async def test(stage: Stage) -> None:
        job_id, silos, work = await join(stage, job)
        await completed(stage, job_id, work)
        # Round 1, round 2, and the evaluation of the last average, at each replica.
        assert stage.log().count('"event": "trunk_hosted"') == 6
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
