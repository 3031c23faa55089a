"""The worker as a process, between a real control plane, a real gateway, and silos in this process."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from celery import Celery
from safetensors.torch import load_file

from splitlearn.control_plane.broker import TASK_NAME, broker_settings, queue_of
from splitlearn.parties import OnProgress, Progress, StepDone, ignore_progress
from splitlearn.tasks import SiloData
from tests.integration.conftest import Job, NewJob, assert_same
from tests.integration.worker_stage import WORKER, Silo, Stage, staged

SMALL: dict[str, Any] = {"rounds": 3, "steps_per_round": 4}


class Reached:
    """Tells when a silo has done a step."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.event = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, StepDone) and progress.step >= self._step:
            self.event.set()


async def join(
    stage: Stage, job: Job, *, at: OnProgress | None = None
) -> tuple[str, list[Silo], asyncio.Task[None]]:
    """Let every silo take part and submit the job; returns it, the silos, and their work."""
    silos = [Silo(stage, job.folder, data, on_progress=at or ignore_progress) for data in job.data]
    task = asyncio.create_task(all_of(silos))
    for silo in silos:
        await silo.announced.wait()
    job_id = await asyncio.to_thread(stage.submit, job.spec)
    return job_id, silos, task


async def all_of(silos: list[Silo]) -> None:
    """Let every silo do its part; the first error ends all."""
    async with asyncio.TaskGroup() as group:
        for silo in silos:
            group.create_task(silo.take_part())


async def completed(stage: Stage, job_id: str, work: asyncio.Task[None]) -> None:
    """Wait for the end of a job, and of every silo's part in it."""
    job = await stage.until(job_id, is_state("completed", "failed", "cancelled"), seconds=60)
    assert job["state"] == "completed", job["reason"]
    await work


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for another process."""
    while not is_so():  # noqa: ASYNC110 - it has no other way to tell
        await asyncio.sleep(0.05)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=120))


def is_state(*states: str) -> Callable[[dict[str, Any]], bool]:
    return lambda job: job["state"] in states


def assert_same_as_simulated(job: Job, silos: list[Silo]) -> None:
    """Every silo's state and the trunk, bit for bit."""
    job.run()
    for silo in silos:
        spec = job.spec
        mine = silo.folder / "checkpoints" / f"round-{spec.rounds:08d}" / "state.safetensors"
        assert_same(load_file(mine), job.state(silo.name))
        assert silo.result is not None
        trunk = {
            name.removeprefix("parameter/"): tensor
            for name, tensor in job.state("trunk-0").items()
            if name.startswith("parameter/")
        }
        assert_same(load_file(silo.result), trunk)


def test_a_job_has_the_simulations_digits(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), rows("bank"), **SMALL)

    async def test(stage: Stage) -> None:
        job_id, silos, work = await join(stage, job)
        await completed(stage, job_id, work)
        assert_same_as_simulated(job, silos)
        kept = stage.stack.places.worker_dir(WORKER) / "jobs"
        await until(lambda: not list(kept.iterdir()))  # the store has all that was there

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        with stage.worker():
            run(test(stage))


def test_a_killed_worker_costs_no_digit(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), rows("bank"), **SMALL)

    async def test(stage: Stage) -> None:
        reached = Reached(6)  # in the second round
        with stage.worker() as first:
            job_id, silos, work = await join(stage, job, at=reached)
            await reached.event.wait()
            first.signal(signal.SIGKILL)
        with stage.worker():
            await completed(stage, job_id, work)
        assert len(set(silos[0].epochs)) > 1
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


def test_cancel_ends_a_round_within_seconds(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), rounds=2, steps_per_round=4000)

    async def test(stage: Stage) -> None:
        reached = Reached(2)
        with stage.worker() as worker:
            job_id, _, work = await join(stage, job, at=reached)
            await reached.event.wait()
            asked = time.monotonic()
            await asyncio.to_thread(stage.admin.call, "POST", f"/jobs/{job_id}/cancel")
            await stage.until(job_id, is_state("cancelled"), seconds=10)
            await until(lambda: "attempt_ended" in stage.log())
            assert time.monotonic() - asked < 5
            assert worker.is_running
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


def test_a_task_that_comes_twice_makes_one_trunk(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), rounds=2, steps_per_round=3)

    async def test(stage: Stage) -> None:
        with stage.worker():
            job_id, silos, work = await join(stage, job)
            await stage.until(job_id, is_state("running", "finishing", "completed"))
            deliver(stage, job_id)
            await completed(stage, job_id, work)
            await until(lambda: "dispatch_outdated" in stage.log())
            assert stage.log().count("trunk_hosted") == 1
            assert silos[0].epochs == [1]

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


def deliver(stage: Stage, job_id: str) -> None:
    """Send a job's first dispatch once more, as a broker may."""
    with Celery("test", set_as_current=False) as app:
        app.conf.update(broker_settings(None, stage.folder / "broker"))
        queue = queue_of(WORKER)
        app.send_task(
            TASK_NAME, kwargs={"job": job_id, "replica": 0, "epoch": 1}, queue=queue, routing_key=queue
        )


def test_sigterm_gives_the_lease_back_and_another_process_goes_on(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), **SMALL)

    async def test(stage: Stage) -> None:
        reached = Reached(5)
        with stage.worker() as first:
            job_id, silos, work = await join(stage, job, at=reached)
            await reached.event.wait()
            first.ask_to_stop()
            await until(lambda: not first.is_running)
            assert first.exit_code == 0
        assert '"outcome": "drained"' in stage.log()
        with stage.worker():
            await completed(stage, job_id, work)
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


def test_the_same_over_redis(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path, redis_url: str
) -> None:
    job = new_job("llama", rows("clinic"), rounds=2, steps_per_round=3)

    async def test(stage: Stage) -> None:
        job_id, silos, work = await join(stage, job)
        await completed(stage, job_id, work)
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent, TRUNKLINE_BROKER_URL=redis_url) as stage:
        stage.register(job.folder)
        with stage.worker():
            run(test(stage))
