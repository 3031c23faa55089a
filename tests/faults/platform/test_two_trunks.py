"""Tasks that come twice, and a worker that hangs past its lease: no second trunk ever trains a job."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from splitlearn.control_plane.broker import TASK_NAME, broker_settings, queue_of
from splitlearn.control_plane.schemas import DispatchBody

pytestmark = pytest.mark.slow

LEASE_SECONDS = 8
STEPS = 12


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), rounds=5, steps_per_round=20)


@pytest.fixture(scope="module")
def stage(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    database, broker = servers
    short = {"TRUNKLINE_LEASE_SECONDS": str(LEASE_SECONDS), "TRUNKLINE_RENEW_SECONDS": "1"}
    made = Stage(
        tmp_path_factory.mktemp("stage"),
        inputs,
        database=database,
        broker=broker,
        num_workers=2,
        environments={"api": short},
    )
    with made.running():
        yield made


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, inputs: StageInputs) -> Finished:
    return stage.finish(stage.submit(inputs.job()))


class Courier:
    """Delivers a task as the control plane does, to whom and as often as a broker might."""

    def __init__(self, url: str, folder: Path) -> None:
        self._celery = Celery("courier", set_as_current=False)
        self._celery.conf.update(broker_settings(url, folder))

    def deliver(self, worker: str, body: DispatchBody, *, message: str) -> None:
        fields = body.model_dump(mode="json")
        self._celery.send_task(TASK_NAME, kwargs=fields, queue=queue_of(worker), task_id=message)


@pytest.fixture
def courier(stage: Stage, tmp_path: Path) -> Courier:
    return Courier(stage.servers["broker"].url, tmp_path)


def granted(stage: Stage, job: str) -> list[tuple[str, int]]:
    """Who was given the lease, and under which epoch, in order."""
    return [(event["worker"], event["epoch"]) for event in stage.events(job, "lease_granted")]


def commits(stage: Stage, job: str) -> list[tuple[int, int]]:
    """Round and epoch of each commit, in order."""
    return [(event["round"], event["epoch"]) for event in stage.events(job, "round_committed")]


class TestTaskThatComesTwice:
    def test_trains_one_trunk_once(
        self, stage: Stage, inputs: StageInputs, undisturbed: Finished, courier: Courier
    ) -> None:
        before = stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS, since=before)
        [(holder, epoch)] = granted(stage, job)
        [other] = set(stage.workers) - {holder}
        body = DispatchBody(job=job, replica=0, epoch=epoch)
        for worker, message in ((holder, "again"), (holder, "again"), (holder, "anew"), (other, "stray")):
            courier.deliver(worker, body, message=message)
        stage.wait(lambda: outdated(stage, other, job), what="the other worker's refusal")
        assert stage.job(job)["state"] == "running", "it was refused while the trunk trained"
        assert stage.finish(job) == undisturbed
        stage.wait(lambda: outdated(stage, holder, job) == 3, what="all of the holder's refusals")
        assert granted(stage, job) == [(holder, epoch)]
        assert stage.steps_done() - before == inputs.spec.total_steps


def outdated(stage: Stage, worker: str, job: str) -> int:
    """How many tasks of a job a worker found outdated."""
    lines = stage.log_of(worker).splitlines()
    return sum("dispatch_outdated" in line and job in line for line in lines)


class TestFrozenWorker:
    def test_commits_nothing_when_it_wakes_up_and_another_trains(
        self, stage: Stage, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        before = stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS, since=before)
        [(frozen, _)] = granted(stage, job)
        stage.freeze(frozen)
        stage.wait(lambda: len(granted(stage, job)) == 2, what="another worker's lease")
        (_, old), (other, new) = granted(stage, job)
        assert other != frozen
        assert new > old
        committed = commits(stage, job)
        stage.wait(lambda: len(commits(stage, job)) > len(committed), what="a round of the other worker")
        stage.thaw(frozen)
        assert stage.finish(job) == undisturbed
        assert {epoch for _, epoch in commits(stage, job)[len(committed) :]} == {new}
        stage.wait(lambda: f"job={job}" in lost(stage, frozen), what="the frozen one's word that it lost")

    def test_gets_nothing_while_it_is_silent_and_begins_again_when_it_wakes_up(
        self, stage: Stage, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        alone, gone = stage.workers
        stage.stop(gone)
        before = stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS, since=before)
        stage.freeze(alone)
        stage.wait(lambda: stage.job(job)["reason"]["code"] == "no_worker", what="the lease's end")
        committed = commits(stage, job)
        stage.thaw(alone)
        assert stage.finish(job) == undisturbed
        (_, old), (again, new) = granted(stage, job)
        assert (again, new > old) == (alone, True)
        assert {epoch for _, epoch in commits(stage, job)[len(committed) :]} == {new}
        stage.start(gone)


def lost(stage: Stage, worker: str) -> str:
    """A worker's lines about leases that it lost."""
    return "\n".join(line for line in stage.log_of(worker).splitlines() if "lease_lost" in line)
