"""``kill -9`` of every part in mid-job: it completes, and what it leaves is the same bit for bit."""

from collections.abc import Iterator

import pytest

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from tests.faults.platform.stage import kill_and_start

pytestmark = pytest.mark.slow

STEPS_BETWEEN = 9
"""Between a recovery and the next kill: no divisor of a round's twenty, so that kills come anywhere in it."""
SHORT = {"rounds": 3}
"""Of a job in which something is killed once."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), rounds=9, steps_per_round=20)


@pytest.fixture(scope="module")
def stage(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    database, broker = servers
    made = Stage(tmp_path_factory.mktemp("stage"), inputs, database=database, broker=broker)
    with made.running():
        yield made


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, inputs: StageInputs) -> Finished:
    """The job, let alone."""
    return stage.finish(stage.submit(inputs.job()))


@pytest.fixture(scope="module")
def short_undisturbed(stage: Stage, inputs: StageInputs) -> Finished:
    """The shorter job, let alone."""
    return stage.finish(stage.submit(inputs.job(**SHORT)))


class TestEveryPart:
    def test_all_seven_killed_in_one_job_change_nothing(
        self, stage: Stage, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        north, south = stage.silos
        job = stage.submit(inputs.job())
        trained = stage.wait_for_steps(STEPS_BETWEEN)
        for part in (
            "gateway",
            f"child-{north}",
            "database",
            "worker-1",
            "broker",
            f"agent-{south}",
            "api",
        ):
            assert stage.job(job)["state"] in {"preparing", "running"}, f"too late to kill {part}"
            kill_and_start(stage, part)
            trained = stage.wait_for_steps(STEPS_BETWEEN, since=stage.steps_done())
        assert trained
        assert stage.finish(job) == undisturbed

    def test_servers_api_and_gateway_killed_together_change_nothing(
        self, stage: Stage, inputs: StageInputs, short_undisturbed: Finished
    ) -> None:
        job = stage.submit(inputs.job(**SHORT))
        stage.wait_for_steps(STEPS_BETWEEN)
        parts = ("database", "broker", "api", "gateway", "worker-1")
        for part in reversed(parts):
            stage.kill(part)
        for part in parts:
            stage.start(part)
        assert stage.finish(job) == short_undisturbed

    def test_killed_before_a_worker_took_the_job_up_loses_no_task(
        self, stage: Stage, inputs: StageInputs, short_undisturbed: Finished
    ) -> None:
        """The broker keeps nothing on disk: a task that lay there is sent again."""
        stage.freeze("worker-1")
        job = stage.submit(inputs.job(**SHORT))
        stage.wait(lambda: stage.events(job, "lease_granted"), what="the dispatch")
        kill_and_start(stage, "broker")
        stage.thaw("worker-1")
        assert stage.finish(job) == short_undisturbed

    def test_killed_until_the_job_is_over_keeps_no_worker_from_the_next(
        self, stage: Stage, inputs: StageInputs, short_undisturbed: Finished
    ) -> None:
        """Celery acknowledges a task when it is over; where it cannot, the task must not count for ever."""
        job = stage.submit(inputs.job(**SHORT))
        stage.wait_for_steps(STEPS_BETWEEN)
        stage.kill("broker")
        assert stage.finish(job) == short_undisturbed
        stage.wait(
            lambda: "Cannot connect to redis" in stage.log_of("worker-1"), what="the worker's question"
        )
        stage.start("broker")
        assert stage.finish(stage.submit(inputs.job(**SHORT))) == short_undisturbed
