"""A job from its submission to its end, and every way in which it can end before."""

import pytest

from backend.db.models import JobState
from backend.jobs.reconciler import give_time
from backend.jobs.state import ENDED, MOVES, IllegalMoveError, check_move
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import ATTEMPT, OTHER_ATTEMPT, Federation


class TestTable:
    def test_every_state_stands_in_it(self) -> None:
        assert set(MOVES) == set(JobState)

    def test_every_state_but_the_first_can_be_reached(self) -> None:
        assert {after for moves in MOVES.values() for after in moves} == set(JobState) - {JobState.SUBMITTED}

    def test_what_has_ended_can_only_be_retried(self) -> None:
        assert all(MOVES[state] <= {JobState.QUEUED, JobState.AWAITING_APPROVAL} for state in ENDED)
        assert not MOVES[JobState.COMPLETED]

    @pytest.mark.parametrize("state", [state for state in JobState if state not in ENDED])
    def test_whatever_has_not_ended_can_be_cancelled_or_fail(self, state: JobState) -> None:
        assert {JobState.CANCELLED, JobState.FAILED} <= MOVES[state]

    def test_refuses_a_move_that_it_does_not_have(self) -> None:
        with pytest.raises(IllegalMoveError, match="no job goes from completed to running"):
            check_move(JobState.COMPLETED, JobState.RUNNING)


class TestLife:
    def test_of_a_job_without_trouble(self, federation: Federation) -> None:
        job_id = federation.submit()
        assert federation.state(job_id) == ("awaiting_approval", "asked")
        federation.approve(job_id)
        federation.look()
        assert federation.state(job_id) == ("preparing", "leased")
        [(worker, body)] = federation.dispatcher.sent
        assert (worker, body.job, body.epoch) == ("worker", job_id, 1)
        assert federation.lease(job_id)["checkpoint"] is None
        assert federation.attach(job_id, "north")["epoch"] == federation.attach(job_id, "south")["epoch"] == 1
        federation.renew(job_id, round_number=1)
        assert federation.state(job_id) == ("running", "running")
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        assert federation.job(job_id)["rounds_committed"] == 3
        federation.release(job_id, "completed", result=federation.upload(b"trunk"))
        assert federation.state(job_id) == ("finishing", "completed")
        federation.finish(job_id)
        federation.look()
        assert federation.state(job_id) == ("completed", "completed")

    def test_result_is_told_to_silos_and_can_be_read(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "completed", result=federation.upload(b"trunk"))
        north = federation.parties["north"]
        [job] = north.ok("GET", "/silo/jobs")["jobs"]
        answer = north("GET", f"/blobs/{job['result']['digest']}")
        assert (answer.status_code, answer.content) == (200, b"trunk")

    def test_waits_for_every_silo(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id, "north")
        federation.look()
        assert federation.state(job_id)[0] == "awaiting_approval"

    def test_refusal_of_one_silo_ends_it_with_its_reason(self, federation: Federation) -> None:
        job_id = federation.submit()
        body = {"decision": "refused", "code": "columns", "reason": "3 rows lack the column 'text'"}
        federation.parties["south"].ok("PUT", f"/silo/jobs/{job_id}/approval", body)
        federation.look()
        assert federation.state(job_id) == ("failed", "refused")
        [_, south] = federation.job(job_id)["silos"]
        assert (south["approval_code"], south["approval_reason"]) == (body["code"], body["reason"])

    def test_silence_of_a_silo_ends_it_after_patience(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id, "north")
        federation.clock.advance(seconds=61)
        federation.look()
        assert federation.state(job_id) == ("failed", "no_answer")
        assert federation.job(job_id)["reason"]["who"] == "south"

    def test_without_a_worker_it_says_what_it_waits_for(self, federation: Federation) -> None:
        federation.parties["worker"].ok("DELETE", "/session")
        job_id = federation.placed()
        assert federation.state(job_id) == ("queued", "no_worker")

    def test_one_worker_is_given_one_trunk(self, federation: Federation) -> None:
        first, second = federation.placed(), federation.placed()
        assert federation.state(first)[0] == "preparing"
        assert federation.state(second) == ("queued", "busy")

    def test_failure_of_the_worker_ends_it_with_its_reason(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        assert federation.state(job_id) == ("failed", "failed")
        assert federation.job(job_id)["reason"]["what"] == "was failed"

    def test_failure_of_a_silo_ends_it(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {"outcome": "failed", "code": "storage", "message": "the disk is full"}
        federation.parties["north"].ok("POST", f"/silo/jobs/{job_id}/finish", body)
        assert federation.state(job_id) == ("failed", "storage")
        assert federation.job(job_id)["reason"]["who"] == "north"

    def test_a_late_word_of_an_older_attempt_ends_nothing(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        path = f"/silo/jobs/{job_id}/finish"
        body = {"outcome": "failed", "code": "storage", "attempt": ATTEMPT}
        assert federation.parties["north"].refused("POST", path, body) == (409, "wrong_state")
        assert federation.state(job_id)[0] == "running"
        federation.parties["north"].ok("POST", path, {**body, "attempt": OTHER_ATTEMPT})
        assert federation.state(job_id) == ("failed", "storage")

    def test_a_word_of_before_a_retry_does_not_end_what_came_after_it(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        body = {"outcome": "failed", "code": "storage", "attempt": ATTEMPT}
        path = f"/silo/jobs/{job_id}/finish"
        assert federation.parties["north"].refused("POST", path, body) == (409, "wrong_state")
        assert federation.state(job_id)[0] == "queued"

    def test_a_silo_that_never_fetches_its_result_does_not_hold_it_up(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "completed", result=federation.upload(b"trunk"))
        federation.finish(job_id, "north")
        federation.look()
        assert federation.state(job_id)[0] == "finishing"
        federation.clock.advance(seconds=61)
        federation.look()
        assert federation.state(job_id) == ("completed", "completed_without")


class TestWishes:
    def test_cancelled_job_tells_the_worker_and_the_gateway(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        assert federation.renew(job_id, round_number=1)["desired"] == "cancel"
        federation.look()
        assert federation.state(job_id) == ("cancelled", "cancelled")
        body = {"epoch": 1, "round": 1, "step": 0}
        lease = f"/worker/leases/{job_id}/0/renew"
        assert federation.parties["worker"].refused("POST", lease, body) == (409, "lease_lost")

    @ON_SQLITE_ALONE
    def test_paused_job_keeps_its_place(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/pause")
        assert federation.renew(job_id, round_number=1)["desired"] == "pause"
        federation.commit(job_id, 1)
        federation.release(job_id, "paused")
        federation.look()
        assert federation.state(job_id)[0] == "paused"
        federation.world.admin.ok("POST", f"/jobs/{job_id}/resume")
        federation.look()
        assert federation.state(job_id)[0] == "preparing"
        assert federation.lease(job_id, epoch=2)["checkpoint"]["round"] == 1

    def test_retried_job_goes_back_to_the_round(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2):
            federation.commit(job_id, number)
        federation.release(job_id, "failed")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {"round": 1})
        federation.look()
        lease = federation.lease(job_id, epoch=2)
        assert (lease["checkpoint"]["round"], lease["max_resume_round"]) == (1, 1)
        federation.commit(job_id, 2, epoch=2)
        assert federation.lease(job_id, epoch=2)["max_resume_round"] is None

    def test_no_round_that_is_not_kept(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        answer = federation.world.admin.refused("POST", f"/jobs/{job_id}/retry", {"round": 2})
        assert answer == (409, "wrong_state")

    @ON_SQLITE_ALONE
    def test_clone_takes_changes(self, federation: Federation) -> None:
        job_id = federation.submit()
        clone = federation.world.admin.ok("POST", f"/jobs/{job_id}/clone", {"changes": {"rounds": 5}})
        assert (clone["spec"]["rounds"], clone["parent_id"]) == (5, job_id)

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("wish", ["cancel", "pause", "resume"])
    def test_what_has_ended_has_ended(self, federation: Federation, wish: str) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        assert federation.world.admin.refused("POST", f"/jobs/{job_id}/{wish}") == (409, "job_over")


class TestEpochs:
    def test_a_silo_that_begins_again_raises_the_epoch(self, federation: Federation) -> None:
        job_id = federation.running()
        assert federation.attach(job_id, "north", OTHER_ATTEMPT)["epoch"] == 2
        assert federation.renew(job_id, epoch=1, round_number=1)["epoch"] == 2

    def test_the_others_follow_without_raising_it_again(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        assert federation.attach(job_id, "south")["epoch"] == 2
        assert federation.attach(job_id, "north", OTHER_ATTEMPT)["epoch"] == 2

    def test_a_late_commit_of_an_old_epoch_changes_nothing(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        path = f"/worker/leases/{job_id}/0/rounds"
        late = federation.commit_body(1, epoch=1)
        assert federation.parties["worker"].refused("POST", path, late) == (409, "lease_lost")
        assert federation.job(job_id)["rounds_committed"] == 0

    def test_a_late_release_of_an_old_epoch_changes_nothing(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        path = f"/worker/leases/{job_id}/0/release"
        body = federation.release_body("failed")
        assert federation.parties["worker"].refused("POST", path, body) == (409, "lease_lost")
        assert federation.state(job_id)[0] == "running"

    def test_a_round_is_committed_once(self, federation: Federation) -> None:
        job_id = federation.running()
        for _ in range(2):
            federation.commit(job_id, 1)
        rounds = federation.world.admin.ok("GET", f"/jobs/{job_id}/rounds")["items"]
        assert [(row["number"], row["epoch"], row["state"]) for row in rounds] == [(1, 1, "committed")]

    def test_a_checkpoint_that_was_never_uploaded_is_refused(self, federation: Federation) -> None:
        job_id = federation.running()
        body = federation.commit_body(1)
        body["checkpoint"]["blob"]["digest"] = "00" * 32
        path = f"/worker/leases/{job_id}/0/rounds"
        assert federation.parties["worker"].refused("POST", path, body) == (404, "not_found")

    def test_a_restarted_worker_loses_its_lease_at_once(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.commit(job_id, 1)
        federation.restart_worker()
        assert federation.parties["worker"].refused("GET", f"/worker/leases/{job_id}/0?epoch=1") == (
            409,
            "lease_lost",
        )
        federation.look()
        assert [body.epoch for _, body in federation.dispatcher.sent] == [1, 2]
        assert federation.lease(job_id, epoch=2)["checkpoint"]["round"] == 1

    def test_a_silent_worker_loses_its_lease(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        federation.look()
        assert federation.state(job_id) == ("queued", "no_worker"), "not given to who is silent"
        federation.parties["worker"].ok("POST", "/session/heartbeat")
        federation.look()
        assert federation.state(job_id)[0] == "preparing"
        assert [body.epoch for _, body in federation.dispatcher.sent] == [1, 2]

    def test_the_lease_of_a_silent_worker_goes_to_another(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.another_worker("other")
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        federation.look()
        assert federation.state(job_id)[0] == "preparing"
        assert [worker for worker, _ in federation.dispatcher.sent] == ["worker", "other"]

    def test_a_worker_that_could_not_renew_while_nobody_answered_keeps_its_lease(
        self, federation: Federation
    ) -> None:
        job_id = federation.running()
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        give_time(federation.world.server)
        federation.look()
        assert federation.state(job_id) == ("running", "running")
        federation.clock.advance(seconds=federation.world.server.settings.lease_seconds + 1)
        federation.look()
        assert federation.state(job_id)[0] == "queued"

    def test_a_task_that_nobody_takes_up_is_sent_again_under_a_new_epoch(
        self, federation: Federation
    ) -> None:
        job_id = federation.placed()
        federation.clock.advance(seconds=federation.world.server.settings.pickup_seconds + 1)
        federation.parties["worker"].ok("POST", "/session/heartbeat")
        federation.look()
        federation.clock.advance(seconds=1)
        federation.parties["worker"].ok("POST", "/session/heartbeat")
        federation.look()
        assert [body.epoch for _, body in federation.dispatcher.sent] == [1, 2]
        path = f"/worker/leases/{job_id}/0?epoch=1"
        assert federation.parties["worker"].refused("GET", path) == (409, "lease_lost")

    def test_a_task_that_the_broker_forgot_is_sent_again_under_its_epoch(
        self, federation: Federation
    ) -> None:
        job_id = federation.placed()
        federation.clock.advance(seconds=2)
        federation.look()
        assert len(federation.dispatcher.sent) == 1
        federation.clock.advance(seconds=2)
        federation.look()
        assert [body.epoch for _, body in federation.dispatcher.sent] == [1, 1]
        federation.lease(job_id)
        federation.clock.advance(seconds=4)
        federation.look()
        assert len(federation.dispatcher.sent) == 2

    def test_a_task_handed_out_twice_speaks_of_one_lease(self, federation: Federation) -> None:
        job_id = federation.placed()
        assert federation.lease(job_id)["epoch"] == federation.lease(job_id)["epoch"] == 1

    def test_a_broker_that_is_away_is_asked_again(self, federation: Federation) -> None:
        federation.dispatcher.is_broken = True
        job_id = federation.placed()
        assert federation.state(job_id) == ("preparing", "broker")
        federation.dispatcher.is_broken = False
        federation.look()
        assert len(federation.dispatcher.sent) == 1
        assert federation.lease(job_id)["epoch"] == 1
