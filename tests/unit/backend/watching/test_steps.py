"""A step split into silo, wire and trunk, out of what both ends report."""

from typing import Any

import pytest

from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.watching.conftest import samples, value


def point(name: str, value: float, step: int = 0) -> dict[str, Any]:
    return {"name": name, "round": 1, "step": step, "value": value}


def send(federation: Federation, party: str, job_id: str, *points: dict[str, Any]) -> None:
    federation.parties[party].ok("POST", "/metrics", {"job": job_id, "metrics": list(points)})


def wire(federation: Federation, job_id: str) -> dict[tuple[str, int], float]:
    rows = federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics?name=wire_seconds")["items"]
    return {(row["party"], row["step"]): row["value"] for row in rows}


class TestSplit:
    def test_is_what_neither_end_computed(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "north", job_id, point("seconds", 1.0), point("compute_seconds", 0.25))
        assert wire(federation, job_id) == {}
        send(federation, "worker", job_id, point("compute_seconds", 0.5))
        assert wire(federation, job_id) == {("silo:north", 0): 0.25}

    def test_comes_out_the_same_whoever_reports_first(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "worker", job_id, point("compute_seconds", 0.5), point("compute_seconds", 0.5, 1))
        for silo, whole in (("north", 1.0), ("south", 2.0)):
            send(federation, silo, job_id, point("seconds", whole, 1), point("compute_seconds", 0.25, 1))
        assert wire(federation, job_id) == {("silo:north", 1): 0.25, ("silo:south", 1): 1.25}

    @ON_SQLITE_ALONE
    def test_is_never_negative_where_both_ends_computed_at_once(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "worker", job_id, point("compute_seconds", 0.75))
        send(federation, "north", job_id, point("seconds", 1.0), point("compute_seconds", 0.5))
        assert wire(federation, job_id) == {("silo:north", 0): 0.0}

    @ON_SQLITE_ALONE
    def test_mixes_no_steps_of_another_round(self, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "worker", job_id, {**point("compute_seconds", 0.5), "round": 2})
        send(federation, "north", job_id, point("seconds", 1.0), point("compute_seconds", 0.25))
        assert wire(federation, job_id) == {}


class TestReplicas:
    """Steps of the same number at several trunks, which one worker may have hosted."""

    def test_keep_their_numbers_apart_and_each_silo_is_split_from_its_own(
        self, federation: Federation
    ) -> None:
        job_id = federation.placed(schedule="hierarchical", replicas=2)
        for replica, seconds in enumerate((0.5, 0.125)):
            body = {"job": job_id, "replica": replica, "metrics": [point("compute_seconds", seconds)]}
            federation.parties["worker"].ok("POST", "/metrics", body)
        rows = federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics?name=compute_seconds")["items"]
        assert {row["party"]: row["value"] for row in rows} == {
            "worker:worker/r0": 0.5,
            "worker:worker/r1": 0.125,
        }
        send(federation, "north", job_id, point("seconds", 1.0), point("compute_seconds", 0.25))
        assert wire(federation, job_id) == {("silo:north", 0): 0.25}


class TestCounts:
    def test_steps_tokens_and_parts_are_told_to_prometheus(self, federation: Federation) -> None:
        job_id = federation.running()
        before = samples(federation.world)
        send(federation, "worker", job_id, point("compute_seconds", 0.5), point("turn_seconds", 3.0, -1))
        told = (point("seconds", 1.0), point("compute_seconds", 0.25), point("label_tokens", 7))
        send(federation, "north", job_id, *told, point("valid_tokens", 9), point("seconds", 60.0, -1))
        after = samples(federation.world)

        def grown(name: str, **labels: str) -> float:
            return value(after, name, **labels) - value(before, name, **labels)

        assert grown("trunkline_silo_steps_total") == 1
        assert grown("trunkline_step_seconds_sum") == 1.0
        assert grown("trunkline_silo_tokens_total", kind="label") == 7
        assert grown("trunkline_silo_tokens_total", kind="valid") == 9
        parts = {
            part: grown("trunkline_step_part_seconds_sum", part=part) for part in ("silo", "wire", "trunk")
        }
        assert parts == pytest.approx({"silo": 0.25, "wire": 0.25, "trunk": 0.5})
        assert grown("trunkline_metric_points_total", kind="silo") == 5

    @ON_SQLITE_ALONE
    def test_rounds_are_counted_as_they_are_committed(self, federation: Federation) -> None:
        job_id = federation.running()
        before = value(samples(federation.world), "trunkline_rounds_committed_total")
        federation.commit(job_id, 1)
        assert value(samples(federation.world), "trunkline_rounds_committed_total") == before + 1

    def test_a_batch_sent_again_counts_once(self, federation: Federation) -> None:
        job_id = federation.running()
        before = samples(federation.world)
        told = (point("seconds", 1.0), point("compute_seconds", 0.25), point("label_tokens", 7))
        send(federation, "worker", job_id, point("compute_seconds", 0.5))
        for _ in range(2):
            send(federation, "north", job_id, *told)
        send(federation, "worker", job_id, point("compute_seconds", 0.5))
        send(federation, "north", job_id, *told, point("seconds", 1.0, 1))  # one is new
        after = samples(federation.world)
        grown = [
            value(after, name, **labels) - value(before, name, **labels)
            for name, labels in (
                ("trunkline_silo_steps_total", {}),
                ("trunkline_silo_tokens_total", {"kind": "label"}),
                ("trunkline_metric_points_total", {"kind": "silo"}),
                ("trunkline_step_part_seconds_count", {"part": "wire"}),
                ("trunkline_step_part_seconds_count", {"part": "trunk"}),
            )
        ]
        assert grown == [2, 7, 4, 1, 1]
