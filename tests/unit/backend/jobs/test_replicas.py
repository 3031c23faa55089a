"""A trunk of several replicas: who is hosted when, what each is told, and what a lost one costs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.db.models import Approval, Desired, JobState
from backend.jobs.decisions import (
    Assign,
    Dispatch,
    JobView,
    LeaseView,
    Reclaim,
    ReplicaView,
    SiloView,
    decide,
    due_replicas,
)
from backend.jobs.placing import WorkerView
from tests.unit.backend.conftest import Api
from tests.unit.backend.jobs.conftest import ATTEMPT, OTHER_ATTEMPT, Federation

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HELD = LeaseView("gpu-1", is_holder_alive=True, expires_at=NOW + timedelta(seconds=15), is_dispatched=True)
LOST = LeaseView("gpu-2", is_holder_alive=False, expires_at=NOW + timedelta(seconds=15), is_dispatched=True)
UNSENT = LeaseView("gpu-2", is_holder_alive=True, expires_at=NOW + timedelta(seconds=15), is_dispatched=False)
TWO: dict[str, Any] = {"schedule": "hierarchical", "replicas": 2}


def job(*replicas: ReplicaView, state: JobState = JobState.RUNNING, **changes: Any) -> JobView:
    facts: dict[str, Any] = {
        "desired": Desired.RUN,
        "since": NOW,
        "patience": timedelta(seconds=60),
        "silos": (SiloView("north", Approval.APPROVED, is_finished=False),),
        "lease": None,
        **changes,
    }
    return JobView(state=state, replicas=replicas, **facts)


def replica(number: int, lease: LeaseView | None = None, *, committed: int = 0, **facts: Any) -> ReplicaView:
    return ReplicaView(number, lease, committed, **facts)


class TestDecisions:
    def test_a_queued_job_begins_with_the_first_that_is_due(self) -> None:
        view = job(replica(0, committed=2), replica(1, committed=1), state=JobState.QUEUED)
        assert decide(view, [WorkerView("gpu-1")], now=NOW) == Assign("gpu-1", 1)

    def test_every_free_worker_gets_one(self) -> None:
        view = job(replica(0, HELD), replica(1))
        assert decide(view, [WorkerView("gpu-1", is_idle=False), WorkerView("gpu-2")], now=NOW) == Assign(
            "gpu-2", 1
        )

    def test_goes_where_it_was_before(self) -> None:
        view = job(replica(0, HELD), replica(1, last_worker="gpu-9"))
        assert decide(view, [WorkerView("gpu-2"), WorkerView("gpu-9")], now=NOW) == Assign("gpu-9", 1)

    def test_one_that_is_ahead_waits_for_the_others(self) -> None:
        view = job(replica(0, committed=1), replica(1, HELD, committed=0))
        assert due_replicas(view) == []
        assert decide(view, [WorkerView("gpu-2")], now=NOW) is None

    def test_one_that_has_evaluated_the_last_average_is_through(self) -> None:
        view = job(replica(0, committed=3, is_done=True), replica(1, committed=3))
        assert [each.number for each in due_replicas(view)] == [1]

    def test_none_begins_while_a_pause_is_wanted(self) -> None:
        view = job(replica(0, HELD), replica(1), desired=Desired.PAUSE)
        assert decide(view, [WorkerView("gpu-2")], now=NOW) is None

    @pytest.mark.parametrize(("lease", "kind"), [(LOST, Reclaim), (UNSENT, Dispatch)])
    def test_each_lease_is_looked_after_by_itself(self, lease: LeaseView, kind: type[Any]) -> None:
        action = decide(job(replica(0, HELD), replica(1, lease)), [], now=NOW)
        assert isinstance(action, kind)
        assert action.replica == 1


class Trunks:
    """The replicas of a job, as their workers speak of them."""

    def __init__(self, federation: Federation, job_id: str) -> None:
        self.federation, self.job_id = federation, job_id

    def path(self, number: int) -> str:
        return f"/worker/leases/{self.job_id}/{number}"

    def lease(self, number: int, *, epoch: int = 1, worker: Api | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self.worker(worker).ok("GET", f"{self.path(number)}?epoch={epoch}")
        return answer

    def commit(self, number: int, round_number: int, *, epoch: int = 1, worker: Api | None = None) -> None:
        body = self.federation.commit_body(round_number, epoch=epoch, content=f"replica {number}".encode())
        self.worker(worker).ok("POST", f"{self.path(number)}/rounds", body)

    def release(self, number: int, outcome: str, *, epoch: int = 1, **facts: Any) -> None:
        body = self.federation.release_body(outcome, epoch=epoch, **facts)
        self.worker(None).ok("POST", f"{self.path(number)}/release", body)

    def worker(self, worker: Api | None) -> Api:
        return worker or self.federation.parties["worker"]

    def of_silo(self, silo: str) -> tuple[int, int] | None:
        """Replica and epoch that a silo is told to join."""
        [seen] = self.federation.parties[silo].ok("GET", "/silo/jobs")["jobs"]
        return None if seen["lease"] is None else (seen["lease"]["replica"], seen["lease"]["epoch"])


class TestOneWorker:
    def test_takes_the_replicas_in_turns(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO, rounds=1))
        federation.lease(trunks.job_id)
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == ((0, 1), None)
        assert federation.attach(trunks.job_id, "north")["replica"] == 0
        federation.renew(trunks.job_id, round_number=1)
        assert federation.state(trunks.job_id)[0] == "running"
        trunks.commit(0, 1)
        trunks.release(0, "round_done")
        assert federation.state(trunks.job_id) == ("queued", "round_done")

        federation.look()
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == (None, (1, 1))
        assert trunks.lease(1)["contributions"] == []
        trunks.commit(1, 1)
        trunks.release(1, "round_done")

        federation.look()
        told = trunks.lease(0, epoch=2)
        assert told["checkpoint"]["round"] == 1
        assert [each["digest"] for each in told["contributions"]] == [
            federation.upload(f"replica {number}".encode() + bytes([1]))["digest"] for number in (0, 1)
        ]
        trunks.release(0, "completed", epoch=2)
        assert federation.state(trunks.job_id)[0] == "queued"

        federation.look()
        trunks.release(1, "completed", epoch=2, result=federation.upload(b"trunk"))
        assert federation.state(trunks.job_id)[0] == "finishing"
        federation.finish(trunks.job_id)
        federation.look()
        assert federation.state(trunks.job_id)[0] == "completed"
        assert [(body.replica, body.epoch) for _, body in federation.dispatcher.sent] == [
            (0, 1),
            (1, 1),
            (0, 2),
            (1, 2),
        ]

    def test_pauses_when_the_round_is_done(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO))
        federation.world.admin.ok("POST", f"/jobs/{trunks.job_id}/pause")
        trunks.commit(0, 1)
        trunks.release(0, "round_done")
        federation.look()
        assert federation.state(trunks.job_id)[0] == "paused"


class TestTwoWorkers:
    def test_host_a_replica_each_and_one_that_is_lost_takes_only_its_silo_back(
        self, federation: Federation
    ) -> None:
        second = federation.another_worker("gpu-2")
        trunks = Trunks(federation, federation.placed(**TWO))
        assert [(worker, body.replica) for worker, body in federation.dispatcher.sent] == [
            ("gpu-2", 0),
            ("worker", 1),
        ]
        trunks.lease(0, worker=second)
        trunks.lease(1)
        trunks.commit(0, 1, worker=second)

        federation.restart_worker()
        federation.look()

        assert trunks.of_silo("north") == (0, 1)
        assert trunks.of_silo("south") == (1, 2)
        second.ok("POST", f"{trunks.path(0)}/renew", {"epoch": 1, "round": 1, "step": 0})
        told = trunks.lease(1, epoch=2)
        assert (told["checkpoint"], told["contributions"]) == (None, [])

    def test_a_silo_that_begins_again_raises_its_own_replicas_epoch(self, federation: Federation) -> None:
        federation.another_worker("gpu-2")
        trunks = Trunks(federation, federation.placed(**TWO))
        for silo in ("north", "south"):
            federation.attach(trunks.job_id, silo, ATTEMPT)
        assert federation.attach(trunks.job_id, "south", OTHER_ATTEMPT)["epoch"] == 2
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == ((0, 1), (1, 2))

    def test_a_replica_without_the_others_contributions_is_told_to_wait(self, federation: Federation) -> None:
        """Its worker was told to begin again just after the round: the lease is of no use then."""
        trunks = Trunks(federation, federation.placed(**TWO))
        trunks.commit(0, 1)
        assert federation.parties["worker"]("GET", f"{trunks.path(0)}?epoch=1").status_code == 409
