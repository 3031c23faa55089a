"""A silo that made no progress, and a worker whose computation hangs: nobody holds a trunk for them."""

import pytest

from tests.unit.backend.jobs.conftest import Federation


def hear(federation: Federation, *silos: str) -> None:
    """Let agents speak, a moment later."""
    federation.clock.advance(seconds=1)
    for silo in silos:
        federation.parties[silo].ok("POST", "/session/heartbeat")


class TestSiloAway:
    def test_job_waits_without_a_worker_and_says_for_whom(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "waiting")
        federation.look()
        shown = federation.job(job_id)
        assert (shown["state"], shown["reason"]["code"], shown["lease"]) == ("queued", "silo_away", None)
        assert shown["reason"]["next"]
        federation.clock.advance(hours=11)  # what the admin is signed in for
        federation.look()
        later = federation.job(job_id)
        assert (later["state"], later["reason"], later["state_since"]) == (
            "queued",
            shown["reason"],
            shown["state_since"],
        )

    def test_goes_on_when_all_its_silos_were_heard_of_again(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.commit(job_id, 1)
        federation.release(job_id, "waiting")
        hear(federation, "north")
        federation.look()
        assert federation.state(job_id) == ("queued", "silo_away")
        hear(federation, "south")
        federation.look()
        assert federation.state(job_id) == ("preparing", "leased")
        assert federation.lease(job_id, epoch=2)["checkpoint"]["round"] == 1

    def test_its_worker_takes_another_job_meanwhile(self, federation: Federation) -> None:
        job_id = federation.running()
        other = federation.submit()
        federation.approve(other)
        federation.look()
        assert federation.state(other) == ("queued", "busy")
        federation.release(job_id, "waiting")
        federation.look()
        assert federation.state(other) == ("preparing", "leased")

    @pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("pause", "paused")])
    def test_a_wish_is_heard_meanwhile(self, wish: str, state: str, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "waiting")
        federation.world.admin.ok("POST", f"/jobs/{job_id}/{wish}")
        federation.look()
        assert federation.state(job_id)[0] == state


class TestStuckWorker:
    def test_job_goes_on_once(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "stuck")
        assert federation.state(job_id) == ("queued", "worker_stuck")
        federation.restart_worker()
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.release(job_id, "stuck", epoch=2)
        assert federation.state(job_id) == ("failed", "worker_stuck")

    def test_a_committed_round_begins_the_count_anew(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "stuck")
        federation.look()
        federation.lease(job_id, epoch=2)
        federation.commit(job_id, 1, epoch=2)
        federation.release(job_id, "stuck", epoch=2)
        assert federation.state(job_id) == ("queued", "worker_stuck")

    def test_so_does_a_retry(self, federation: Federation) -> None:
        job_id = federation.running()
        for epoch in (1, 2):
            federation.release(job_id, "stuck", epoch=epoch)
            federation.look()
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        federation.look()
        federation.lease(job_id, epoch=3)
        federation.release(job_id, "stuck", epoch=3)
        assert federation.state(job_id) == ("queued", "worker_stuck")
