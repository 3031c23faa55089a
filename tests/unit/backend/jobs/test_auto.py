"""What a job's schedule becomes where it is left open."""

from typing import Any

from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import CAPABILITIES, Federation

pytestmark = ON_SQLITE_ALONE


def plan(federation: Federation, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = federation.world.admin.ok(
        "POST", "/jobs/plan", {"spec": federation.spec(**changes)}
    )
    return found


class TestAuto:
    def test_what_is_signed_is_what_was_chosen_and_what_was_asked_is_kept(
        self, federation: Federation
    ) -> None:
        job = federation.job(federation.submit(schedule="auto"))
        assert job["spec"]["schedule"] == "client-batching"
        schedule = job["schedule"]
        assert (schedule["asked"], schedule["chosen"], schedule["replicas"]) == ("auto", "client-batching", 1)
        assert schedule["reason"].startswith("1 worker; a round takes about ")

    def test_what_was_asked_for_by_name_has_no_reason(self, federation: Federation) -> None:
        job = federation.job(federation.submit(schedule="serial"))
        expected = {"asked": "serial", "chosen": "serial", "replicas": 1, "reason": None}
        assert job["schedule"] == expected

    def test_the_event_tells_it(self, federation: Federation) -> None:
        job_id = federation.submit(schedule="auto")
        text = federation.world.admin("GET", f"/jobs/{job_id}/events?follow=false").text
        assert '"schedule":"client-batching"' in text.replace(" ", "")
        assert "schedule_reason" in text

    def test_a_clone_is_chosen_for_anew(self, federation: Federation) -> None:
        job_id = federation.submit(schedule="auto")
        clone = federation.world.admin.ok("POST", f"/jobs/{job_id}/clone", {"changes": {"name": "again"}})
        assert clone["schedule"]["asked"] == "auto"

    def test_a_trunk_that_fits_only_turn_by_turn_is_trained_so(self, federation: Federation) -> None:
        rows = {"batch_size": 64, "max_tokens": 4096}
        together, apart = (
            plan(federation, schedule=schedule, **rows)["roles"][1]["total"]
            for schedule in ("client-batching", "serial")
        )
        device = {**CAPABILITIES["device"], "total_memory_bytes": (together + apart) // 2}  # type: ignore[dict-item]
        federation.parties["worker"].ok("PUT", "/worker/capabilities", {**CAPABILITIES, "device": device})
        schedule = plan(federation, schedule="auto", **rows)["schedule"]
        assert schedule["chosen"] == "serial"
        assert "fits none" in schedule["reason"]

    def test_replicas_are_not_chosen_where_they_are_not_served(self, federation: Federation) -> None:
        federation.another_worker("second")
        served = federation.world.admin(
            "POST", "/jobs/plan", {"spec": federation.spec(schedule="hierarchical", replicas=2)}
        )
        chosen = plan(federation, schedule="auto")["schedule"]["chosen"]
        assert served.status_code == 200 or chosen != "hierarchical"

    def test_with_nobody_there_it_says_so(self, federation: Federation) -> None:
        federation.clock.advance(seconds=200)
        schedule = plan(federation, schedule="auto")["schedule"]
        assert (schedule["chosen"], "no worker is there" in schedule["reason"]) == ("client-batching", True)
