"""A job that goes on without a silo that was away for too long, where its specification says so."""

import json
from typing import Any

from tests.unit.backend.jobs.conftest import OTHER_ATTEMPT, Federation


def give_up(federation: Federation, job_id: str, *silos: str, epoch: int = 1) -> None:
    """The worker gives the lease back: these silos made no progress within patience."""
    body = {**federation.release_body("waiting", epoch=epoch), "away": list(silos)}
    federation.parties["worker"].ok("POST", f"/worker/leases/{job_id}/0/release", body)


def events(federation: Federation, job_id: str, kind: str) -> list[dict[str, Any]]:
    text = federation.world.admin("GET", f"/jobs/{job_id}/events?follow=false").text
    told = [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]
    return [event for event in told if event["kind"] == kind]


def finished(federation: Federation, job_id: str) -> dict[str, str | None]:
    return {silo["name"]: silo["finished"] for silo in federation.job(job_id)["silos"]}


class TestGoingOn:
    def test_without_a_lost_silo_from_the_last_round(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        federation.commit(job_id, 1)
        give_up(federation, job_id, "south")
        assert federation.state(job_id) == ("queued", "silo_lost")
        federation.look()
        lease = federation.lease(job_id, epoch=2)
        assert (lease["lost"], lease["checkpoint"]["round"]) == (["south"], 1)
        [lost] = events(federation, job_id, "silo_lost")
        assert (lost["silo"], lost["after_round"]) == ("south", 1)

    def test_records_who_took_part_in_each_round(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        federation.commit(job_id, 1)
        give_up(federation, job_id, "north")
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.commit(job_id, 2, epoch=2)
        rounds = {event["round"]: event["silos"] for event in events(federation, job_id, "round_committed")}
        assert rounds == {1: ["north", "south"], 2: ["south"]}

    def test_completes_when_those_who_are_left_have_their_results(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        give_up(federation, job_id, "south")
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.release(job_id, "completed", epoch=2, result=federation.upload(b"trunk"))
        federation.finish(job_id, "north")
        federation.look()
        assert federation.state(job_id) == ("completed", "completed")
        assert finished(federation, job_id) == {"north": "completed", "south": "lost"}

    def test_a_lost_silo_that_returns_is_told_that_its_part_is_over(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        give_up(federation, job_id, "south")
        federation.look()
        federation.lease(job_id, epoch=2)
        south = federation.parties["south"]
        assert south.ok("GET", "/silo/jobs")["jobs"] == []
        path = f"/silo/jobs/{job_id}/attach"
        assert south.refused("POST", path, {"attempt": OTHER_ATTEMPT}) == (409, "job_over")
        south.ok("POST", f"/silo/jobs/{job_id}/finish", {"outcome": "failed", "message": "late"})
        assert federation.job(job_id)["state"] == "preparing"

    def test_a_retry_does_not_bring_it_back(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        give_up(federation, job_id, "south")
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.release(job_id, "failed", epoch=2)
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        federation.look()
        assert federation.lease(job_id, epoch=3)["lost"] == ["south"]


class TestRevoked:
    def test_ends_a_silos_part_and_the_job_goes_on(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue")
        federation.commit(job_id, 1)
        federation.world.admin.ok("POST", "/silos/south/revoke", {})
        federation.look()
        assert federation.job(job_id)["state"] == "preparing"
        assert federation.lease(job_id, epoch=2)["lost"] == ["south"]
        assert finished(federation, job_id) == {"north": None, "south": "lost"}

    def test_fails_a_job_that_waits_for_all(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.world.admin.ok("POST", "/silos/south/revoke", {})
        federation.look()
        assert federation.state(job_id) == ("failed", "silo_revoked")


class TestWaiting:
    def test_is_what_a_job_does_that_does_not_say_otherwise(self, federation: Federation) -> None:
        job_id = federation.running()
        give_up(federation, job_id, "south")
        assert federation.state(job_id) == ("queued", "silo_away")
        assert finished(federation, job_id) == {"north": None, "south": None}

    def test_is_what_is_left_where_too_few_silos_would_be(self, federation: Federation) -> None:
        job_id = federation.running(on_lost_silo="continue", min_silos=2)
        give_up(federation, job_id, "south")
        assert federation.state(job_id) == ("queued", "silo_away")

    def test_is_for_all_silos_at_once(self, federation: Federation) -> None:
        """Then it is rather the worker that is cut off."""
        job_id = federation.running(on_lost_silo="continue")
        give_up(federation, job_id, "north", "south")
        assert federation.state(job_id) == ("queued", "silo_away")
        assert finished(federation, job_id) == {"north": None, "south": None}
