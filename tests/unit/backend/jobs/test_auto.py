"""What a job's schedule becomes where it is left open, and what a plan stands on."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select

from backend.db.models import JobSilo, Metric, Silo
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import CAPABILITIES, Federation

pytestmark = ON_SQLITE_ALONE
SPEED: dict[str, Any] = {
    "layer_seconds": 0.001,
    "rates": [{"width": 256, "flops_per_second": 4e10}, {"width": 64, "flops_per_second": 1e10}],
    "logits_per_second": 1e8,
    "updates_per_second": 2e8,
    "tensor_seconds": 0.0,
}


def has_finished(federation: Federation, silo: str, numbers: dict[str, float]) -> None:
    """Let a silo have finished a job in which each step took so long."""
    job_id = uuid.UUID(federation.submit())
    with federation.world.server.database.write() as session:
        row = session.scalars(select(Silo).where(Silo.name == silo)).one()
        part = session.get_one(JobSilo, (job_id, row.id))
        part.finish_outcome, part.finished_at = "completed", federation.clock()
        for name, value in numbers.items():
            for step in range(3):
                session.add(
                    Metric(
                        job_id=job_id,
                        party=f"silo:{silo}",
                        name=name,
                        round=1,
                        step=step,
                        value=value,
                        received_at=federation.clock(),
                    )
                )


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


class TestPlan:
    def test_tells_seconds_and_what_they_stand_on(self, federation: Federation) -> None:
        found = plan(federation)
        assert 0 < found["seconds_per_step"] < found["seconds_per_round"]
        assert "worker 'worker' has not told its speed" in found["assumptions"][0]
        assert any("north, south finished no job yet" in said for said in found["assumptions"])

    def test_a_worker_that_told_its_speed_is_believed(self, federation: Federation) -> None:
        slow = {**SPEED, "layer_seconds": 10.0}
        federation.parties["worker"].ok("PUT", "/worker/capabilities", {**CAPABILITIES, "speed": slow})
        found = plan(federation)
        assert found["trunk_seconds_per_step"] > 20  # two layers lie in the trunk
        assert not any("told its speed" in said for said in found["assumptions"])

    def test_counts_the_secure_sums(self, federation: Federation) -> None:
        assert (plan(federation)["wire_bytes_per_sum"], plan(federation)["sums_per_round"]) == (0, 0)

    def test_a_silos_speed_follows_from_its_last_job(self, federation: Federation) -> None:
        has_finished(federation, "north", {"compute_seconds": 0.5})
        found = plan(federation)
        assert found["silo_seconds_per_step"] == pytest.approx(0.5)  # the other one is taken for much faster
        assert any(said.startswith("south finished no job yet") for said in found["assumptions"])

    def test_a_round_trip_that_was_measured_is_twice_in_a_step(self, federation: Federation) -> None:
        has_finished(federation, "north", {"compute_seconds": 0.5, "round_trip_seconds": 1.02})
        before = plan(federation)["seconds_per_step"]
        federation.clock.advance(seconds=1)
        has_finished(federation, "north", {"compute_seconds": 0.5, "round_trip_seconds": 2.02})
        assert plan(federation)["seconds_per_step"] - before == pytest.approx(2.0)
