"""Leases, rounds and checkpoints: what counts, what stays in the store, and who may say so."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from backend.artifacts.retention import sweep
from backend.db.models import Job, PartyKind
from backend.errors import ApiError
from backend.jobs import hosting
from backend.jobs.hosting import Holder
from backend.jobs.reconciler import reconcile
from backend.parties.repository import find_party
from splitlearn.control_plane.schemas import CommitBody
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import ATTEMPT, OTHER_ATTEMPT, Federation


def checkpoints(federation: Federation, job_id: str) -> list[str]:
    """Names of the checkpoints that stay."""
    items = federation.world.admin.ok("GET", f"/jobs/{job_id}/artifacts")["items"]
    return sorted(item["name"] for item in items if item["expires_at"] is None)


def rounds(federation: Federation, job_id: str) -> list[tuple[int, int, str]]:
    items = federation.world.admin.ok("GET", f"/jobs/{job_id}/rounds")["items"]
    return [(item["number"], item["epoch"], item["state"]) for item in items]


def kinds(federation: Federation, job_id: str) -> list[str]:
    text = federation.world.admin("GET", f"/jobs/{job_id}/events?follow=false").text
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


class TestLease:
    def test_ends_with_the_failure_of_a_silo(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {"outcome": "failed", "code": "storage", "message": "the disk is full"}
        federation.parties["north"].ok("POST", f"/silo/jobs/{job_id}/finish", body)
        assert federation.job(job_id)["lease"] is None
        assert federation.state(federation.placed())[0] == "preparing"

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "paused", "drained"])
    def test_ends_with_its_release(self, federation: Federation, outcome: str) -> None:
        job_id = federation.running()
        federation.release(job_id, outcome)
        assert federation.job(job_id)["lease"] is None

    @ON_SQLITE_ALONE
    def test_is_not_given_to_another_organisations_worker(self, federation: Federation) -> None:
        foreign = federation.foreign_worker()
        federation.parties["worker"].ok("DELETE", "/session")
        assert federation.state(federation.placed()) == ("queued", "no_worker")
        assert federation.world.admin.ok("POST", "/jobs/plan", {"spec": federation.spec()})["workers"] == []
        assert foreign.token

    @ON_SQLITE_ALONE
    def test_of_a_round_that_the_job_has_not(self, federation: Federation) -> None:
        path = f"/worker/leases/{federation.running()}/0/renew"
        for number in (4, 10**30):
            body = {"epoch": 1, "round": number, "step": 0}
            assert federation.parties["worker"].refused("POST", path, body) == (422, "no_such_round")

    @ON_SQLITE_ALONE
    def test_takes_any_number_of_steps(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {"epoch": 1, "round": 1, "step": 10**30}
        federation.parties["worker"].ok("POST", f"/worker/leases/{job_id}/0/renew", body)

    @ON_SQLITE_ALONE
    def test_is_not_another_workers(self, federation: Federation) -> None:
        job_id = federation.running()
        other = federation.another_worker("gpu-2")
        path = f"/worker/leases/{job_id}/0"
        assert other.refused("GET", f"{path}?epoch=1") == (409, "lease_lost")
        body = {"epoch": 1, "round": 1, "step": 0}
        assert other.refused("POST", f"{path}/renew", body) == (409, "lease_lost")
        assert other.refused("POST", f"{path}/release", federation.release_body("failed")) == (
            409,
            "lease_lost",
        )

    @ON_SQLITE_ALONE
    def test_of_another_replica_is_nobodys(self, federation: Federation) -> None:
        job_id = federation.running()
        answer = federation.parties["worker"].refused("GET", f"/worker/leases/{job_id}/1?epoch=1")
        assert answer == (409, "lease_lost")


class TestCommit:
    @ON_SQLITE_ALONE
    def test_of_a_round_that_the_job_has_not(self, federation: Federation) -> None:
        job_id = federation.running()
        path = f"/worker/leases/{job_id}/0/rounds"
        answer = federation.parties["worker"].refused("POST", path, federation.commit_body(4))
        assert answer == (422, "no_such_round")

    @ON_SQLITE_ALONE
    def test_that_says_it_took_for_ever(self, federation: Federation) -> None:
        job_id = federation.running()
        body = {**federation.commit_body(1), "seconds": 1e300}
        federation.parties["worker"].ok("POST", f"/worker/leases/{job_id}/0/rounds", body)
        assert rounds(federation, job_id) == [(1, 1, "committed")]

    @ON_SQLITE_ALONE
    def test_again_with_another_checkpoint_is_refused(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.commit(job_id, 1)
        path = f"/worker/leases/{job_id}/0/rounds"
        body = federation.commit_body(1, content=b"other")
        assert federation.parties["worker"].refused("POST", path, body) == (409, "round_committed")
        assert kinds(federation, job_id).count("round_committed") == 1

    def test_under_a_new_epoch_replaces_what_the_old_one_did_after_it(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        body = federation.commit_body(2, epoch=2, content=b"anew")
        federation.parties["worker"].ok("POST", f"/worker/leases/{job_id}/0/rounds", body)
        assert rounds(federation, job_id) == [(1, 1, "committed"), (2, 2, "committed"), (3, 1, "abandoned")]
        assert federation.job(job_id)["rounds_committed"] == 2
        newest = federation.lease(job_id, epoch=2)["checkpoint"]
        assert (newest["round"], newest["blob"]) == (2, body["checkpoint"]["blob"])


class TestCheckpoints:
    def test_the_newest_stay(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        assert checkpoints(federation, job_id) == ["checkpoint-0-2", "checkpoint-0-3"]

    def test_of_rounds_that_were_given_up_take_no_place(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        federation.release(job_id, "failed")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {"round": 0})
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.commit(job_id, 1, epoch=2)
        assert checkpoints(federation, job_id) == ["checkpoint-0-1"]
        world = federation.world
        sweep(world.server.database, world.server.store, now=world.clock())
        assert federation.lease(job_id, epoch=2)["checkpoint"]["round"] == 1

    def test_of_a_round_that_was_trained_anew_goes(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.commit(job_id, 1)
        federation.attach(job_id, "north", OTHER_ATTEMPT)
        federation.commit(job_id, 1, epoch=2)
        assert checkpoints(federation, job_id) == ["checkpoint-0-1"]

    @ON_SQLITE_ALONE
    def test_that_are_about_to_go_are_nothing_to_retry_from(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2, 3):
            federation.commit(job_id, number)
        federation.release(job_id, "failed")
        answer = federation.world.admin("POST", f"/jobs/{job_id}/retry", {"round": 1})
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
        assert answer.json()["message"] == "round 1 is not kept; kept are 0 (anew) and [2, 3]"

    @ON_SQLITE_ALONE
    def test_a_wish_to_go_back_holds_until_a_round_is_committed(self, federation: Federation) -> None:
        job_id = federation.running()
        for number in (1, 2):
            federation.commit(job_id, number)
        federation.release(job_id, "failed")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {"round": 1})
        federation.look()
        federation.release(job_id, "failed", epoch=2)
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        federation.look()
        lease = federation.lease(job_id, epoch=3)
        assert (lease["max_resume_round"], lease["checkpoint"]["round"]) == (1, 1)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call all at the same moment; return answers and refusals in order."""
    barrier = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(position: int) -> None:
        barrier.wait()
        try:
            answers[position] = calls[position]()
        except ApiError as error:
            answers[position] = error

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class TestAtTheSameMoment:
    """Each call is a thread with a transaction of its own, as requests are."""

    @pytest.fixture
    def holder(self, federation: Federation) -> Holder:
        job_id = federation.running()
        with federation.world.server.database.read() as session:
            worker = find_party(session, PartyKind.WORKER, "worker")
            assert worker is not None
            job = session.get_one(Job, uuid.UUID(job_id))
            return Holder(job.id, 0, worker.id, worker.name, worker.epoch)

    def _commit(self, federation: Federation, holder: Holder, content: bytes) -> Callable[[], None]:
        server = federation.world.server
        body = CommitBody.model_validate(federation.commit_body(1, content=content))

        def commit() -> None:
            with server.database.write() as session:
                hosting.commit(session, server.settings, server.store, holder, body, now=server.now())

        return commit

    def test_one_of_several_checkpoints_of_a_round_wins(self, federation: Federation, holder: Holder) -> None:
        calls = [self._commit(federation, holder, name) for name in (b"a", b"b", b"c", b"d")]
        answers = at_once(*calls)
        assert answers.count(None) == 1
        assert {error.code for error in answers if error is not None} == {"round_committed"}
        job_id = str(holder.job_id)
        assert rounds(federation, job_id) == [(1, 1, "committed")]
        assert kinds(federation, job_id).count("round_committed") == 1
        assert checkpoints(federation, job_id) == ["checkpoint-0-1"]

    def test_the_same_commit_sent_twice_counts_once(self, federation: Federation, holder: Holder) -> None:
        commit = self._commit(federation, holder, b"a")
        assert at_once(commit, commit) == [None, None]
        assert kinds(federation, str(holder.job_id)).count("round_committed") == 1

    def test_a_silo_that_begins_again_and_a_commit_exclude_each_other(
        self, federation: Federation, holder: Holder
    ) -> None:
        job_id = str(holder.job_id)
        commit = self._commit(federation, holder, b"a")
        refused, lease = at_once(commit, lambda: federation.attach(job_id, "north", OTHER_ATTEMPT))
        assert lease["epoch"] == 2
        committed = refused is None
        assert committed or refused.code == "lease_lost"
        assert rounds(federation, job_id) == ([(1, 1, "committed")] if committed else [])

    def test_two_reconcilers_give_one_lease(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id)
        server = federation.world.server
        for _ in range(3):
            at_once(*[lambda: reconcile(server, federation.dispatcher)] * 3)
        assert federation.job(job_id)["lease"]["epoch"] == 1
        assert {body.epoch for _, body in federation.dispatcher.sent} == {1}

    def test_a_retry_and_the_removal_of_its_model_exclude_each_other(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        admin = federation.world.admin
        retried, removed = at_once(
            lambda: admin("POST", f"/jobs/{job_id}/retry", {}).status_code,
            lambda: admin("DELETE", "/models/tiny").status_code,
        )
        assert (retried, removed) in {(200, 409), (409, 204)}

    def test_a_submission_and_the_removal_of_its_model_exclude_each_other(
        self, federation: Federation
    ) -> None:
        admin = federation.world.admin
        submitted, removed = at_once(
            lambda: admin("POST", "/jobs", {"spec": federation.spec()}).status_code,
            lambda: admin("DELETE", "/models/tiny").status_code,
        )
        assert (submitted, removed) in {(201, 409), (422, 204)}


class TestSilos:
    @ON_SQLITE_ALONE
    def test_attach_before_a_worker_hosts_the_trunk_is_told_to_wait(self, federation: Federation) -> None:
        job_id = federation.submit()
        path = f"/silo/jobs/{job_id}/attach"
        answer = federation.parties["north"].refused("POST", path, {"attempt": ATTEMPT})
        assert answer == (409, "no_lease")

    @ON_SQLITE_ALONE
    def test_attach_to_what_is_over_is_told_so(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        path = f"/silo/jobs/{job_id}/attach"
        answer = federation.parties["north"].refused("POST", path, {"attempt": ATTEMPT})
        assert answer == (409, "job_over")

    @ON_SQLITE_ALONE
    def test_a_word_is_not_taken_back(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id, "north")
        federation.approve(job_id, "north")
        path = f"/silo/jobs/{job_id}/approval"
        answer = federation.parties["north"].refused("PUT", path, {"decision": "refused"})
        assert answer == (409, "wrong_state")

    @ON_SQLITE_ALONE
    def test_who_has_no_part_is_told_nothing(self, federation: Federation) -> None:
        job_id = federation.submit(silos=[{"name": "north", "dataset": "notes"}])
        south = federation.parties["south"]
        assert south.ok("GET", "/silo/jobs")["jobs"] == []
        for path, body in (
            ("approval", {"decision": "approved"}),
            ("attach", {"attempt": ATTEMPT}),
            ("finish", {"outcome": "completed"}),
        ):
            method = "PUT" if path == "approval" else "POST"
            assert south.refused(method, f"/silo/jobs/{job_id}/{path}", body) == (404, "not_found")

    @ON_SQLITE_ALONE
    def test_none_is_through_before_the_trunk_is(self, federation: Federation) -> None:
        job_id = federation.running()
        path = f"/silo/jobs/{job_id}/finish"
        answer = federation.parties["north"].refused("POST", path, {"outcome": "completed"})
        assert answer == (409, "wrong_state")


class TestReconciler:
    @ON_SQLITE_ALONE
    def test_one_job_that_cannot_be_handled_does_not_hold_up_the_others(
        self, federation: Federation, capfd: pytest.CaptureFixture[str]
    ) -> None:
        broken, sound = federation.submit(), federation.submit()
        with federation.world.server.database.write() as session:
            session.get_one(Job, uuid.UUID(broken)).spec_bytes = b"{}"
        federation.approve(sound)
        federation.look()
        assert federation.state(sound)[0] == "preparing"
        assert "step_failed" in capfd.readouterr().err
