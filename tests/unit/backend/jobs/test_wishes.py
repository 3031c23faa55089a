"""What people may ask of a job in each of its states."""

from collections.abc import Callable

import pytest

from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation

pytestmark = ON_SQLITE_ALONE


def _queued(federation: Federation) -> str:
    federation.parties["worker"].ok("DELETE", "/session")
    return federation.placed()


def _paused(federation: Federation) -> str:
    job_id = federation.running()
    federation.world.admin.ok("POST", f"/jobs/{job_id}/pause")
    federation.release(job_id, "paused")
    return job_id


def _cancelling(federation: Federation) -> str:
    job_id = federation.running()
    federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
    return job_id


def _finishing(federation: Federation) -> str:
    job_id = federation.running()
    federation.release(job_id, "completed", result=federation.upload(b"trunk"))
    return job_id


def _completed(federation: Federation) -> str:
    job_id = _finishing(federation)
    federation.finish(job_id)
    federation.look()
    return job_id


def _failed(federation: Federation) -> str:
    job_id = federation.running()
    federation.release(job_id, "failed")
    return job_id


def _cancelled(federation: Federation) -> str:
    job_id = _cancelling(federation)
    federation.look()
    return job_id


def _refused(federation: Federation) -> str:
    job_id = federation.submit()
    federation.parties["south"].ok("PUT", f"/silo/jobs/{job_id}/approval", {"decision": "refused"})
    federation.look()
    return job_id


STATES: dict[str, tuple[Callable[[Federation], str], str]] = {
    "awaiting_approval": (Federation.submit, "awaiting_approval"),
    "queued": (_queued, "queued"),
    "preparing": (Federation.placed, "preparing"),
    "running": (Federation.running, "running"),
    "paused": (_paused, "paused"),
    "being cancelled": (_cancelling, "running"),
    "finishing": (_finishing, "finishing"),
    "completed": (_completed, "completed"),
    "failed": (_failed, "failed"),
    "cancelled": (_cancelled, "cancelled"),
    "refused": (_refused, "failed"),
}

# The code of the answer, or the state in which the job is once the reconciler has looked.
ANSWERS = {
    "awaiting_approval": {
        "cancel": "cancelled",
        "pause": "wrong_state",
        "resume": "awaiting_approval",
        "retry": "wrong_state",
    },
    "queued": {"cancel": "cancelled", "pause": "paused", "resume": "queued", "retry": "wrong_state"},
    "preparing": {
        "cancel": "cancelled",
        "pause": "preparing",
        "resume": "preparing",
        "retry": "wrong_state",
    },
    "running": {"cancel": "cancelled", "pause": "running", "resume": "running", "retry": "wrong_state"},
    "paused": {"cancel": "cancelled", "pause": "paused", "resume": "preparing", "retry": "wrong_state"},
    "being cancelled": {
        "cancel": "cancelled",
        "pause": "wrong_state",
        "resume": "wrong_state",
        "retry": "wrong_state",
    },
    "finishing": {
        "cancel": "cancelled",
        "pause": "wrong_state",
        "resume": "finishing",
        "retry": "wrong_state",
    },
    "completed": {"cancel": "job_over", "pause": "job_over", "resume": "job_over", "retry": "wrong_state"},
    "failed": {"cancel": "job_over", "pause": "job_over", "resume": "job_over", "retry": "preparing"},
    "cancelled": {"cancel": "cancelled", "pause": "job_over", "resume": "job_over", "retry": "preparing"},
    "refused": {"cancel": "job_over", "pause": "job_over", "resume": "job_over", "retry": "wrong_state"},
}


class TestEveryWishInEveryState:
    @pytest.mark.parametrize("stage", STATES)
    def test_is_granted_or_refused_with_state_and_remedy(self, federation: Federation, stage: str) -> None:
        make, state = STATES[stage]
        for wish, expected in ANSWERS[stage].items():
            job_id = make(federation)
            assert federation.state(job_id)[0] == state
            body: object = {} if wish == "retry" else None
            answer = federation.world.admin("POST", f"/jobs/{job_id}/{wish}", body)
            if answer.is_success:
                federation.look()
                assert federation.state(job_id)[0] == expected, wish
            else:
                told = answer.json()
                assert (answer.status_code, told["code"]) == (409, expected), wish
                assert state in told["message"] or "refused" in told["message"], wish
                assert told["remedy"], wish
                assert federation.state(job_id)[0] == state
            _end(federation, job_id)

    def test_an_unknown_job_is_not_found(self, federation: Federation) -> None:
        unknown = "00000000-0000-0000-0000-000000000000"
        for wish in ("cancel", "pause", "resume", "retry", "clone"):
            body: object = {} if wish in {"retry", "clone"} else None
            path = f"/jobs/{unknown}/{wish}"
            assert federation.world.admin.refused("POST", path, body) == (404, "not_found")


def _end(federation: Federation, job_id: str) -> None:
    """Make the worker free for the next job."""
    federation.world.admin("POST", f"/jobs/{job_id}/cancel")
    federation.look()
    federation.restart_worker()


class TestCancel:
    def test_asked_twice_leaves_one_trace(self, federation: Federation) -> None:
        job_id = _cancelling(federation)
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        rows = [row for row in federation.world.audit() if row["action"] == "cancel_job"]
        assert len(rows) == 1


class TestPause:
    def test_does_not_take_a_cancellation_back(self, federation: Federation) -> None:
        job_id = _cancelling(federation)
        federation.world.admin.refused("POST", f"/jobs/{job_id}/pause")
        federation.look()
        assert federation.state(job_id)[0] == "cancelled"

    def test_taken_back_before_the_worker_obeyed_does_not_hold_the_job(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/pause")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/resume")
        federation.release(job_id, "paused")
        federation.look()
        assert federation.state(job_id)[0] == "preparing"

    def test_holds_where_the_worker_died_first(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/pause")
        federation.restart_worker()
        federation.look()
        assert federation.state(job_id) == ("paused", "paused")


class TestRetry:
    def test_asks_silos_that_never_answered(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id, "north")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        federation.look()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        federation.look()
        assert federation.state(job_id) == ("awaiting_approval", "retried")
        federation.approve(job_id, "south")
        federation.look()
        assert federation.state(job_id)[0] == "preparing"

    def test_gives_a_silo_that_was_silent_its_whole_patience_again(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.clock.advance(seconds=61)
        federation.look()
        assert federation.state(job_id) == ("failed", "no_answer")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        federation.look()
        assert federation.state(job_id)[0] == "awaiting_approval"

    def test_without_its_model_is_refused(self, federation: Federation) -> None:
        job_id = _failed(federation)
        federation.world.admin.ok("DELETE", "/models/tiny")
        answer = federation.world.admin("POST", f"/jobs/{job_id}/retry", {})
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
        assert answer.json()["message"].startswith("the model 'tiny' was removed")
        assert federation.state(job_id)[0] == "failed"

    def test_without_one_of_its_silos_is_refused(self, federation: Federation) -> None:
        job_id = _failed(federation)
        federation.world.admin.ok("POST", "/silos/south/revoke")
        answer = federation.world.admin("POST", f"/jobs/{job_id}/retry", {})
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
        assert "'south'" in answer.json()["message"]

    def test_forgets_how_silos_ended(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {"outcome": "failed", "code": "storage", "message": "the disk is full"}
        federation.parties["north"].ok("POST", f"/silo/jobs/{job_id}/finish", body)
        shown = federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        assert [(silo["finished"], silo["finish_code"]) for silo in shown["silos"]] == [(None, "")] * 2

    def test_of_no_round_is_refused(self, federation: Federation) -> None:
        job_id = _failed(federation)
        for number in (-1, 1 << 63, 10**30, 1.5):
            answer = federation.world.admin.refused("POST", f"/jobs/{job_id}/retry", {"round": number})
            assert answer == (422, "invalid_request"), number


class TestRemoveModel:
    def test_is_refused_while_a_job_may_go_on(self, federation: Federation) -> None:
        job_id = federation.submit()
        assert federation.world.admin.refused("DELETE", "/models/tiny") == (409, "model_in_use")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
        federation.look()
        federation.world.admin.ok("DELETE", "/models/tiny")
