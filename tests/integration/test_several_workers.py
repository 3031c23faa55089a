"""Several workers, and several jobs at one: drained, ended by signals, in turns; and never another digit."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from splitlearn.tasks import SiloData
from tests.integration.conftest import NewJob
from tests.integration.test_worker_process import (
    Reached,
    assert_same_as_simulated,
    is_state,
    join,
    until,
)
from tests.integration.worker_stage import WORKER, Stage, staged

pytestmark = pytest.mark.slow
SECOND = "gpu-2"
DRAIN_SECONDS = 1.0
PATIENCE_SECONDS = 240.0  # on a machine with other things to do


def is_hosted_by(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda job: job["lease"] is not None and job["lease"]["worker"] == name


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=2 * PATIENCE_SECONDS))


async def completed(stage: Stage, job_id: str, work: asyncio.Task[None]) -> None:
    """Wait for the end of a job, and of every silo's part in it."""
    is_over = is_state("completed", "failed", "cancelled")
    job = await stage.until(job_id, is_over, seconds=PATIENCE_SECONDS)
    assert job["state"] == "completed", job["reason"]
    await work


def events(stage: Stage, name: str) -> list[dict[str, Any]]:
    """What a worker's log has, in order."""
    return [json.loads(line) for line in stage.log(name).splitlines() if line.startswith("{")]


def test_a_worker_that_gets_sigterm_in_mid_round_gives_its_lease_back_and_another_goes_on(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    job = new_job("llama", rows("clinic"), rounds=2, steps_per_round=60)

    async def test(stage: Stage) -> None:
        reached = Reached(65)  # in the second round
        drain = {"TRUNKLINE_WORKER_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"}
        with stage.worker(**drain) as first, stage.worker(name=SECOND):
            await until(lambda: "worker_ready" in stage.log(SECOND))
            await asyncio.to_thread(stage.admin.call, "POST", f"/workers/{SECOND}/drain")
            job_id, silos, work = await join(stage, job, at=reached)
            await reached.event.wait()
            assert is_hosted_by(WORKER)(await asyncio.to_thread(stage.job, job_id))
            await asyncio.to_thread(stage.admin.call, "POST", f"/workers/{SECOND}/undrain")
            first.ask_to_stop()
            await until(lambda: not first.is_running)
            assert first.exit_code == 0
            # Given back, not lost: nobody had to wait until it ran out.
            assert '"outcome": "drained"' in stage.log(WORKER)
            await completed(stage, job_id, work)
        assert [event["event"] for event in events(stage, SECOND)].count("trunk_hosted") == 1
        assert_same_as_simulated(job, silos)

    with staged(tmp_path / "state", models_from=job.folder.parent) as stage:
        stage.register(job.folder)
        run(test(stage))


def test_two_jobs_at_one_worker_take_turns_and_end_as_if_each_were_alone(
    new_job: NewJob, rows: Callable[..., SiloData], tmp_path: Path
) -> None:
    # A round long enough that the wish to give way comes before the next one begins, most of the time.
    shape = {"rounds": 4, "steps_per_round": 10, "adapter": {"kind": "lora"}}
    one, two = new_job("llama", rows("clinic"), **shape), new_job("llama", rows("bank"), seed=9, **shape)

    async def test(stage: Stage) -> None:
        first = await join(stage, one)
        second = await join(stage, two)
        for job_id, _, _ in (first, second):
            await stage.until(job_id, is_state("queued"), seconds=PATIENCE_SECONDS)
        with stage.worker():
            for job_id, _, work in (first, second):
                await completed(stage, job_id, work)
        finished = [event["job"] for event in events(stage, WORKER) if event["event"] == "round_finished"]
        order = [0 if job_id == first[0] else 1 for job_id in finished]
        # Neither waits until the other is through, and neither loses a round.
        assert sorted(order) == [0] * 4 + [1] * 4
        assert sum(before != after for before, after in pairwise(order)) >= 3
        assert '"order": "give_way_after_round"' in stage.log()
        assert_same_as_simulated(one, first[1])
        assert_same_as_simulated(two, second[1])

    with staged(tmp_path / "state", models_from=one.folder.parent, TRUNKLINE_TURN_SECONDS="0") as stage:
        stage.register(one.folder)
        run(test(stage))
