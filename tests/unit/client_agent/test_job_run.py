"""How a silo's part goes, with a control plane and an attempt that do what the test says."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from client_agent import job_run
from client_agent.control import FetchedModel
from client_agent.data import DatasetRegistry
from client_agent.job_run import JobRun
from client_agent.job_view import JobView
from client_agent.places import AgentFolder
from client_agent.preparation import DisagreementError, Prepared
from client_agent.processes.messages import Ended
from client_agent.training_loop import Attempt
from splitlearn.control_plane.errors import JobOverError, NoLeaseError
from splitlearn.control_plane.schemas import BlobRef, DesiredState, SiloJob, SiloLease
from splitlearn.errors import LinkError, NoSpaceError, StorageError, TrunklineError
from splitlearn.spec import JobSpec
from splitlearn.tasks import DataReport, SiloData

SPEC = JobSpec.parse({"model": "m", "silos": [{"name": "north", "dataset": "notes"}]})
DATA = SiloData("north", (), (), DataReport(9, 8, 1, 0, 0, 0, 0, 70, 60, 24))
RESULT = BlobRef(digest="0" * 64, num_bytes=1)
WAITING = SiloJob(
    id="0f3c0000-0000-4000-8000-000000000001",
    name="job",
    state="awaiting_approval",
    desired=DesiredState.RUN,
    approval="waiting",
    spec="",
    signature="",
)


def leased(epoch: int) -> SiloLease:
    return SiloLease(replica=0, epoch=epoch, worker="gpu-1", gateway_url="ws://127.0.0.1:1")


def running(epoch: int) -> SiloJob:
    return WAITING.model_copy(update={"approval": "approved", "state": "running", "lease": leased(epoch)})


FINISHING = running(1).model_copy(update={"lease": None, "result": RESULT, "state": "finishing"})


class FakeControl:
    """Accepts everything, offers the epochs it is given, and notes what was said."""

    def __init__(self, *offers: int | TrunklineError) -> None:
        self.offers = list(offers)
        self.said: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.numbers: dict[str, float] = {}

    async def fetch_model(self, _: JobSpec) -> FetchedModel:
        return FetchedModel(Path("model"), "hub/model")

    async def approve(self, body: Any) -> None:
        self.said.append((body.decision, body.code))
        self.reasons.append(body.reason)

    async def attach(self, _: str) -> SiloLease:
        offer = self.offers.pop(0)
        if isinstance(offer, TrunklineError):
            raise offer
        return leased(offer)

    async def finish(self, body: Any) -> None:
        self.said.append((body.outcome, body.code))
        self.reasons.append(body.message)

    async def send_logs(self, lines: Any) -> None:
        self.told += [(line.event, line.code) for line in lines]

    async def send_metrics(self, points: Any) -> None:
        self.numbers |= {point.name: point.value for point in points}

    async def download(self, _: BlobRef, __: Path) -> None:
        pass

    def connector(self, _: SiloLease) -> Any:
        return None

    def identity(self) -> Any:
        return None

    def trust(self) -> Any:
        return None

    def note_epoch(self, _: int) -> bool:
        return True


class Stage:
    """A run whose preparation, attempts and export are the test's."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.view: JobView
        self.epochs: list[int] = []
        self.min_metric_rows = 1
        self.min_silos_in_sum = 3
        self.sums_over: list[int] = []
        self.spec = SPEC
        self.withholds_below: list[int] = []
        self.prepare: Callable[..., Prepared] = lambda *_, **__: cast(
            "Prepared", type("P", (), {"data": DATA, "spec": SPEC, "silo": "north"})()
        )
        self.attempt: Callable[[int], Coroutine[Any, Any, None]] = self.succeed
        self._tmp_path = tmp_path
        self.folder = AgentFolder(tmp_path).job(WAITING.id)
        self.folder.path.mkdir(parents=True)
        monkeypatch.setattr(job_run, "prepare", self._prepare)
        monkeypatch.setattr(job_run, "take_part", self._take_part)
        monkeypatch.setattr(job_run, "export_whole", lambda *_, **__: None)
        monkeypatch.setattr(job_run, "_SETTLING_SECONDS", 0.01)
        monkeypatch.setattr(job_run, "_NO_LEASE_SECONDS", 0.001)
        monkeypatch.setattr(
            JobRun, "_dataset", lambda _: type("D", (), {"refuse_other_task": lambda *_: None})()
        )

    def play(self, control: FakeControl, first: SiloJob = WAITING) -> Ended:
        async def run() -> Ended:
            self.view = JobView(first)
            return await JobRun(
                self.spec,
                silo="north",
                control=control,
                view=self.view,
                registry=DatasetRegistry(self._tmp_path),
                folder=self.folder,
                device="cpu",
                on_phase=lambda _: None,
                min_metric_rows=self.min_metric_rows,
                min_silos_in_sum=self.min_silos_in_sum,
            ).run()

        return asyncio.run(asyncio.wait_for(run(), 10))

    async def succeed(self, _: int) -> None:
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.view.update(FINISHING)))

    def _prepare(self, *_: Any, **__: Any) -> Prepared:
        return self.prepare()

    async def _take_part(self, _: Prepared, attempt: Attempt, **__: Any) -> None:
        self.epochs.append(attempt.lease.epoch)
        self.withholds_below.append(attempt.min_metric_rows)
        self.sums_over.append(attempt.min_silos_in_sum)
        await self.attempt(attempt.lease.epoch)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


class TestApproval:
    def test_comes_before_training(self, stage: Stage) -> None:
        control = FakeControl(1)
        approve = control.approve

        async def then_leased(body: Any) -> None:
            await approve(body)
            await stage.view.update(running(1))

        control.approve = then_leased  # type: ignore[method-assign]
        assert stage.play(control).outcome == "finished"
        assert control.said == [("approved", "approved"), ("completed", "completed")]

    def test_fails_on_a_full_disk_and_may_be_tried_again(self, stage: Stage) -> None:
        def prepare(*_: Any, **__: Any) -> Prepared:
            raise NoSpaceError(
                "no space for /private: 7 bytes needed", public="its disk is full: 7 bytes needed"
            )

        stage.prepare = prepare
        control = FakeControl()
        ended = stage.play(control)
        assert (ended.outcome, control.said) == ("failed", [("failed", "no_space")])
        assert control.reasons == ["silo 'north': its disk is full: 7 bytes needed"]

    def test_is_refused_by_what_others_may_know(self, stage: Stage) -> None:
        def disagree(*_: Any, **__: Any) -> Prepared:
            raise DisagreementError("a.csv:3: label 'SECRET'", public="1 of 3 rows")

        stage.prepare = disagree
        control = FakeControl()
        ended = stage.play(control)
        assert (ended.outcome, ended.message, control.said) == (
            "refused",
            "a.csv:3: label 'SECRET'",
            [("refused", "data_disagrees")],
        )
        assert control.reasons == ["silo 'north': 1 of 3 rows"]

    def test_given_before_is_not_taken_back_but_the_part_fails(self, stage: Stage) -> None:
        def fail(*_: Any, **__: Any) -> Prepared:
            raise StorageError("no space on /private")

        stage.prepare = fail
        control = FakeControl()
        assert stage.play(control, running(1)).outcome == "failed"
        assert (control.said, "/private" in control.reasons[0]) == ([("failed", "storage")], False)


class TestNumbersOfFewRows:
    def test_the_silos_policy_reaches_every_attempt_and_is_told(self, stage: Stage) -> None:
        stage.min_metric_rows = 7
        control = FakeControl(1)
        assert stage.play(control, running(1)).outcome == "finished"
        assert stage.withholds_below == [7]
        assert control.numbers["min_metric_rows"] == 7


class TestAveragedBlocks:
    def averaged(self, stage: Stage) -> None:
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south", "west")]
        stage.spec = JobSpec.parse({"model": "m", "silos": silos, "silo_blocks": "averaged"})

    def test_over_fewer_silos_than_the_silo_asks_for_are_refused(self, stage: Stage) -> None:
        self.averaged(stage)
        stage.min_silos_in_sum = 4
        control = FakeControl()
        ended = stage.play(control)
        assert (ended.outcome, control.said) == ("refused", [("refused", "sum_roster")])
        assert "this silo averages its blocks from 4 on" in ended.message
        reason = (
            "silo 'north': the job has 3 silos, this silo averages its blocks from 4 on; "
            "add silos, or train with silo_blocks 'local'"
        )
        assert control.reasons == [reason]

    def test_over_enough_are_not(self, stage: Stage) -> None:
        self.averaged(stage)
        assert stage.play(FakeControl(1), running(1)).outcome == "finished"
        assert stage.sums_over == [3]


class TestAttempts:
    def test_begin_again_when_the_epoch_moves(self, stage: Stage) -> None:
        async def moved(epoch: int) -> None:
            if epoch == 1:
                await stage.view.update(running(2))
                await asyncio.Event().wait()
            await stage.succeed(epoch)

        stage.attempt = moved
        assert stage.play(FakeControl(1, 2), running(1)).outcome == "finished"
        assert stage.epochs == [1, 2]

    def test_that_fail_for_no_known_reason_end_the_job_after_three(self, stage: Stage) -> None:
        async def fail(epoch: int) -> None:
            await stage.view.update(running(epoch))
            raise LinkError("the worker was away")

        stage.attempt = fail
        control = FakeControl(1, 2, 3)
        ended = stage.play(control, running(1))
        assert (ended.outcome, stage.epochs, control.said) == ("failed", [1, 2, 3], [("failed", "link")])

    def test_that_fail_before_the_view_knows_their_epoch_are_not_taken_for_outdated(
        self, stage: Stage
    ) -> None:
        async def fail_once(epoch: int) -> None:
            if epoch == 2:
                asyncio.get_running_loop().call_later(
                    0.05, lambda: asyncio.ensure_future(stage.view.update(running(2)))
                )
                raise LinkError("the worker was away")
            await stage.succeed(epoch)

        stage.attempt = fail_once
        assert stage.play(FakeControl(2, 3), running(1)).outcome == "finished"
        assert stage.epochs == [2, 3]

    def test_wait_where_the_lease_has_ended_meanwhile(self, stage: Stage) -> None:
        assert stage.play(FakeControl(NoLeaseError("not now"), 1), running(1)).outcome == "finished"

    def test_end_with_the_job(self, stage: Stage) -> None:
        control = FakeControl(JobOverError("it was cancelled", code="job_over"))
        ended = stage.play(control, running(1))
        assert (ended.outcome, ended.code, control.said) == ("ended", "job_over", [])

    def test_are_not_needed_where_the_result_is_there(self, stage: Stage) -> None:
        assert stage.play(FakeControl(), FINISHING).outcome == "finished"
        assert stage.epochs == []
