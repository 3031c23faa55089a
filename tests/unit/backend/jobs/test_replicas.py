"""A trunk of several replicas: who is hosted when, what each is told, and what a lost one costs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.db.models import Approval, Desired, JobState
from backend.jobs.decisions import (
    Assign,
    Dispatch,
    Explain,
    JobView,
    LeaseView,
    Reclaim,
    ReplicaView,
    SiloView,
    decide,
    due_replicas,
    is_meeting_due,
)
from backend.jobs.placing import Need, WorkerView
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


def meeting(lease: LeaseView | None = None, *, committed: int = 0) -> ReplicaView:
    return ReplicaView(2, lease, committed)


class TestDecisions:
    def test_a_queued_job_begins_with_the_first_that_is_due(self) -> None:
        view = job(
            replica(0, committed=2),
            replica(1, committed=1),
            meeting=meeting(committed=1),
            state=JobState.QUEUED,
        )
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
        view = job(
            replica(0, committed=3, is_done=True), replica(1, committed=3), meeting=meeting(committed=3)
        )
        assert [each.number for each in due_replicas(view)] == [1]

    def test_none_begins_while_a_pause_is_wanted(self) -> None:
        view = job(replica(0, HELD), replica(1), desired=Desired.PAUSE)
        assert decide(view, [WorkerView("gpu-2")], now=NOW) is None

    @pytest.mark.parametrize(("lease", "kind"), [(LOST, Reclaim), (UNSENT, Dispatch)])
    def test_each_lease_is_looked_after_by_itself(self, lease: LeaseView, kind: type[Any]) -> None:
        action = decide(job(replica(0, HELD), replica(1, lease)), [], now=NOW)
        assert isinstance(action, kind)
        assert action.replica == 1


class TestMeeting:
    """After each round, once all replicas have given their leases back; before the next round."""

    def test_is_due_when_every_replica_has_committed(self) -> None:
        view = job(
            replica(0, committed=1, last_worker="gpu-1"),
            replica(1, committed=1, last_worker="gpu-2"),
            meeting=meeting(),
            state=JobState.QUEUED,
        )
        crew = [WorkerView("gpu-1"), WorkerView("gpu-2")]
        assert decide(view, crew, now=NOW) == Assign("gpu-2", 2), "who has just hosted a replica"

    def test_is_given_to_a_worker_that_could_host_no_trunk(self) -> None:
        need = Need("m", "llama", "fp32", lasting_bytes=1 << 40)
        view = job(
            replica(0, committed=1),
            replica(1, committed=1),
            meeting=meeting(),
            state=JobState.QUEUED,
            need=need,
        )
        assert decide(view, [WorkerView("small")], now=NOW) == Assign("small", 2)

    def test_that_evaluates_goes_only_where_the_trunk_can_be_hosted(self) -> None:
        view = job(
            replica(0, committed=1),
            replica(1, committed=1),
            meeting=meeting(),
            meeting_evaluates=True,
            state=JobState.QUEUED,
            need=Need("m", "llama", "fp32", lasting_bytes=1 << 40),
        )
        assert isinstance(decide(view, [WorkerView("small")], now=NOW), Explain)
        able = WorkerView("able", memory_bytes=1 << 42, precisions=("fp32",), families=("llama",))
        assert decide(view, [WorkerView("small"), able], now=NOW) == Assign("able", 2)

    def test_waits_until_the_last_replica_is_given_back(self) -> None:
        view = job(replica(0, committed=1), replica(1, HELD, committed=1), meeting=meeting())
        assert not is_meeting_due(view)
        assert decide(view, [WorkerView("gpu-2")], now=NOW) is None

    @pytest.mark.parametrize("committed", [0, 1])
    def test_is_awaited_by_every_replica(self, committed: int) -> None:
        """Also where it is committed and its lease is still held: its silos are there."""
        view = job(
            replica(0, committed=1), replica(1, committed=1), meeting=meeting(HELD, committed=committed)
        )
        assert due_replicas(view) == []

    @pytest.mark.parametrize(("lease", "kind"), [(LOST, Reclaim), (UNSENT, Dispatch)])
    def test_is_looked_after_as_a_replica_is(self, lease: LeaseView, kind: type[Any]) -> None:
        view = job(replica(0, committed=1), replica(1, committed=1), meeting=meeting(lease))
        action = decide(view, [], now=NOW)
        assert isinstance(action, kind)
        assert action.replica == 2


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

    def do_round(self, round_number: int, *, epoch: int = 1) -> int:
        """Let the one worker host a round of both replicas; return the meeting's epoch."""
        for number in (0, 1):
            self.lease(number, epoch=epoch)
            self.commit(number, round_number, epoch=epoch)
            self.release(number, "round_done", epoch=epoch)
            self.federation.look()
            epoch += 1
        return epoch

    def worker(self, worker: Api | None) -> Api:
        return worker or self.federation.parties["worker"]

    def of_silo(self, silo: str) -> tuple[int, int] | None:
        """Replica and epoch that a silo is told to join."""
        [seen] = self.federation.parties[silo].ok("GET", "/silo/jobs")["jobs"]
        return None if seen["lease"] is None else (seen["lease"]["replica"], seen["lease"]["epoch"])


def digests(federation: Federation, round_number: int, *numbers: int) -> list[str]:
    """Of what :meth:`Trunks.commit` commits."""
    contents = (f"replica {number}".encode() + bytes([round_number]) for number in numbers)
    return [federation.upload(content)["digest"] for content in contents]


class TestOneWorker:
    def test_takes_the_replicas_in_turns_and_averages_them_after_each_round(
        self, federation: Federation
    ) -> None:
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
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == (None, (1, 2))
        told = trunks.lease(1, epoch=2)
        assert (told["average"], told["meeting"]) == (None, None)
        trunks.commit(1, 1, epoch=2)
        trunks.release(1, "round_done", epoch=2)
        assert federation.job(trunks.job_id)["rounds_committed"] == 0, "it is not averaged yet"

        federation.look()
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == (None, None), (
            "their blocks are their own"
        )
        told = trunks.lease(2, epoch=3)
        assert told["meeting"]["round"] == 1
        found = [each["digest"] for each in told["meeting"]["contributions"]]
        assert found == digests(federation, 1, 0, 1)
        trunks.commit(2, 1, epoch=3)
        trunks.release(2, "round_done", epoch=3)
        assert federation.job(trunks.job_id)["rounds_committed"] == 1

        federation.look()
        told = trunks.lease(0, epoch=4)
        assert told["checkpoint"]["round"] == 1
        assert [told["average"]["digest"]] == digests(federation, 1, 2)
        trunks.release(0, "completed", epoch=4)
        assert federation.state(trunks.job_id)[0] == "queued"

        federation.look()
        trunks.release(1, "completed", epoch=5, result=federation.upload(b"trunk"))
        assert federation.state(trunks.job_id)[0] == "finishing"
        federation.finish(trunks.job_id)
        federation.look()
        assert federation.state(trunks.job_id)[0] == "completed"
        sent = [(body.replica, body.epoch) for _, body in federation.dispatcher.sent]
        assert sent == [(0, 1), (1, 2), (2, 3), (0, 4), (1, 5)]
        assert [task.removeprefix("trunkline.") for task in federation.dispatcher.tasks] == [
            *("host_trunk", "host_trunk", "average_replicas", "host_trunk", "host_trunk"),
        ]

    def test_pauses_when_the_round_is_done(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO))
        federation.world.admin.ok("POST", f"/jobs/{trunks.job_id}/pause")
        trunks.commit(0, 1)
        trunks.release(0, "round_done")
        federation.look()
        assert federation.state(trunks.job_id)[0] == "paused"

    def test_that_is_lost_while_it_averages_is_given_the_meeting_again(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO))
        trunks.do_round(1)
        federation.look()
        trunks.lease(2, epoch=3)
        federation.restart_worker()
        federation.look()
        assert federation.parties["worker"]("GET", f"{trunks.path(2)}?epoch=3").status_code == 409
        found = trunks.lease(2, epoch=4)["meeting"]["contributions"]
        assert [each["digest"] for each in found] == digests(federation, 1, 0, 1)

    def test_lets_all_silos_meet_where_evaluations_decide_and_may_end_before_the_last_round(
        self, federation: Federation
    ) -> None:
        watched = {"every_rounds": 1, "patience_evaluations": 1}
        trunks = Trunks(federation, federation.placed(**TWO, rounds=5, evaluation=watched))
        epoch = trunks.do_round(1)
        assert trunks.of_silo("north") == trunks.of_silo("south") == (2, epoch)
        told = trunks.lease(2, epoch=epoch)
        assert (told["checkpoint"], told["meeting"]["round"]) == (None, 1)
        trunks.commit(2, 1, epoch=epoch)
        trunks.release(2, "round_done", epoch=epoch)
        federation.look()

        epoch = trunks.do_round(2, epoch=epoch + 1)
        told = trunks.lease(2, epoch=epoch)
        assert (told["checkpoint"]["round"], told["meeting"]["round"]) == (1, 2), "what the last one left"
        trunks.commit(2, 2, epoch=epoch)
        trunks.release(2, "round_done", epoch=epoch)
        federation.look()

        for number in (0, 1):
            epoch += 1
            assert trunks.lease(number, epoch=epoch)["checkpoint"]["round"] == 2
            trunks.release(number, "completed", epoch=epoch, result=federation.upload(b"trunk"))
            federation.look()
        assert federation.state(trunks.job_id)[0] == "finishing"

    def test_is_not_done_any_more_after_the_job_went_back(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO, rounds=1))
        epoch = trunks.do_round(1)
        trunks.commit(2, 1, epoch=epoch)
        trunks.release(2, "round_done", epoch=epoch)
        federation.look()
        trunks.release(0, "completed", epoch=epoch + 1)
        federation.look()
        trunks.release(1, "failed", epoch=epoch + 2)
        assert federation.state(trunks.job_id)[0] == "failed"
        federation.world.admin.ok("POST", f"/jobs/{trunks.job_id}/retry", {"round": 1})
        federation.look()
        assert trunks.of_silo("north") == (0, epoch + 3), "of the replica that was done"

    def test_goes_back_with_all_replicas_and_their_average(self, federation: Federation) -> None:
        trunks = Trunks(federation, federation.placed(**TWO))
        epoch = 1
        for round_number in (1, 2):
            epoch = trunks.do_round(round_number, epoch=epoch)
            federation.look()
            trunks.commit(2, round_number, epoch=epoch)
            trunks.release(2, "round_done", epoch=epoch)
            federation.look()
            epoch += 1
        trunks.release(0, "failed", epoch=epoch)
        federation.world.admin.ok("POST", f"/jobs/{trunks.job_id}/retry", {"round": 1})
        federation.look()
        told = trunks.lease(0, epoch=epoch + 1)
        assert (told["checkpoint"]["round"], told["max_resume_round"]) == (1, 1)
        assert [told["average"]["digest"]] == digests(federation, 1, 2)
        epoch = trunks.do_round(2, epoch=epoch + 1)
        federation.look()
        assert trunks.lease(2, epoch=epoch)["meeting"]["round"] == 2, "the old average counts no more"


class TestAveragedBlocks:
    """The silos of all replicas join the meeting."""

    @pytest.fixture
    def trunks(self, federation: Federation) -> Trunks:
        """Two replicas of three silos, whose first round is committed, and who meet now."""
        federation.add_silo("west")
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south", "west")]
        job_id = federation.submit(**TWO, silos=silos, silo_blocks="averaged")
        federation.approve(job_id, "north", "south", "west")
        federation.look()
        trunks = Trunks(federation, job_id)
        trunks.do_round(1)
        federation.look()
        return trunks

    def test_every_silo_is_told_of_the_meeting_while_it_is_held(
        self, federation: Federation, trunks: Trunks
    ) -> None:
        told = [trunks.of_silo(name) for name in ("north", "south", "west")]
        assert told == [(2, 3)] * 3
        assert federation.attach(trunks.job_id, "west")["replica"] == 2
        body = {"job": trunks.job_id, "replica": 2, "epoch": 3, "silo": "west"}
        for party in ("west", "worker"):
            federation.parties[party].ok("POST", "/tickets", body)
        trunks.commit(2, 1, epoch=3)
        trunks.release(2, "round_done", epoch=3)
        federation.look()
        assert trunks.of_silo("north") == (0, 4)
        assert trunks.of_silo("west") is None

    def test_a_silo_that_begins_again_raises_the_meetings_epoch(
        self, federation: Federation, trunks: Trunks
    ) -> None:
        federation.attach(trunks.job_id, "south", ATTEMPT)
        assert federation.attach(trunks.job_id, "south", OTHER_ATTEMPT)["epoch"] == 4
        assert trunks.of_silo("north") == (2, 4)

    def test_a_silo_that_is_away_is_waited_for(self, federation: Federation, trunks: Trunks) -> None:
        body = {**federation.release_body("waiting", epoch=3), "away": ["west"]}
        trunks.worker(None).ok("POST", f"{trunks.path(2)}/release", body)
        federation.look()
        assert federation.state(trunks.job_id) == ("queued", "silo_away")
        federation.clock.advance(seconds=1)
        for name in ("north", "south", "west"):
            federation.parties[name].ok("POST", "/session/heartbeat")
        federation.look()
        assert trunks.of_silo("west") == (2, 4)


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
        trunks.lease(1, epoch=2)
        trunks.commit(0, 1, worker=second)

        federation.restart_worker()
        federation.look()

        assert trunks.of_silo("north") == (0, 1)
        assert trunks.of_silo("south") == (1, 3)
        second.ok("POST", f"{trunks.path(0)}/renew", {"epoch": 1, "round": 1, "step": 0})
        told = trunks.lease(1, epoch=3)
        assert (told["checkpoint"], told["average"]) == (None, None)

    def test_one_that_is_stuck_is_tried_again_and_the_other_goes_on(self, federation: Federation) -> None:
        second = federation.another_worker("gpu-2")
        trunks = Trunks(federation, federation.placed(**TWO))
        trunks.lease(0, worker=second)
        trunks.lease(1, epoch=2)
        trunks.release(1, "stuck", epoch=2)
        federation.look()
        assert trunks.of_silo("north") == (0, 1)
        assert trunks.of_silo("south") == (1, 3)
        trunks.commit(0, 1, worker=second)  # the other's round says nothing of this one
        trunks.release(1, "stuck", epoch=3)
        assert federation.state(trunks.job_id) == ("failed", "worker_stuck")

    def test_one_that_was_stuck_before_its_last_round_is_tried_again(self, federation: Federation) -> None:
        second = federation.another_worker("gpu-2")
        trunks = Trunks(federation, federation.placed(**TWO))
        trunks.lease(0, worker=second)
        trunks.release(1, "stuck", epoch=2)
        federation.look()
        trunks.commit(1, 1, epoch=3)
        trunks.release(1, "stuck", epoch=3)
        assert federation.state(trunks.job_id)[0] != "failed"

    def test_a_silo_that_begins_again_raises_its_own_replicas_epoch(self, federation: Federation) -> None:
        federation.another_worker("gpu-2")
        trunks = Trunks(federation, federation.placed(**TWO))
        for silo in ("north", "south"):
            federation.attach(trunks.job_id, silo, ATTEMPT)
        assert federation.attach(trunks.job_id, "south", OTHER_ATTEMPT)["epoch"] == 3
        assert (trunks.of_silo("north"), trunks.of_silo("south")) == ((0, 1), (1, 3))

    def test_a_replica_without_the_average_is_told_to_wait(self, federation: Federation) -> None:
        """Its worker was told to begin again just after the round: the lease is of no use then."""
        trunks = Trunks(federation, federation.placed(**TWO))
        trunks.commit(0, 1)
        assert federation.parties["worker"]("GET", f"{trunks.path(0)}?epoch=1").status_code == 409
