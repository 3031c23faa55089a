"""What a plan stands on: what parties told of themselves, and what earlier jobs told of them."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from backend.db.models import Job, JobSilo, JobState, Lease, Metric, Silo, Worker
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import ANNOUNCED, CAPABILITIES, Federation

pytestmark = ON_SQLITE_ALONE
SPEED: dict[str, Any] = {
    "layer_seconds": 0.001,
    "rates": [{"width": 256, "flops_per_second": 4e10}, {"width": 64, "flops_per_second": 1e10}],
    "logits_per_second": 1e8,
    "updates_per_second": 2e8,
    "tensor_seconds": 0.0,
}
Numbers = Mapping[str, Sequence[float]]


def plan(federation: Federation, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = federation.world.admin.ok(
        "POST", "/jobs/plan", {"spec": federation.spec(**changes)}
    )
    return found


def has_finished(
    federation: Federation, told: Mapping[str, Numbers], *, replica: int | None = None, **changes: Any
) -> uuid.UUID:
    """Let a job have ended now for these parties, after steps of which they told such numbers.

    Args:
        federation: Its parties: silos, and ``worker``, who hosted the trunk.
        told: By party and name, step by step.
        replica: Which of several trunks the worker hosted.
        changes: Of the specification.
    """
    job_id = uuid.UUID(federation.submit(**changes))
    federation.clock.advance(seconds=1)
    now = federation.clock()
    with federation.world.server.database.write() as session:
        session.get_one(Job, job_id).state = JobState.COMPLETED
        for party, numbers in told.items():
            if party == "worker":
                worker = session.scalars(select(Worker)).one()
                lease = Lease(job_id=job_id, replica=replica or 0, worker_id=worker.id, epoch=1)
                lease.expires_at = lease.released_at = now
                lease.worker_epoch = worker.epoch
                session.add(lease)
            else:
                silo = session.scalars(select(Silo).where(Silo.name == party)).one()
                part = session.get_one(JobSilo, (job_id, silo.id))
                part.finish_outcome, part.finished_at = "completed", now
            name_of = "worker:worker" if party == "worker" else f"silo:{party}"
            name_of += "" if replica is None else f"/r{replica}"
            for name, values in numbers.items():
                for step, value in enumerate(values):
                    key = {"job_id": job_id, "party": name_of, "name": name, "round": 0}
                    session.add(Metric(**key, step=step, value=value, received_at=now))
    return job_id


def tell_speed(federation: Federation, **changes: Any) -> None:
    told = {**CAPABILITIES, "speed": {**SPEED, **changes}}
    federation.parties["worker"].ok("PUT", "/worker/capabilities", told)


def computed(*seconds: float) -> dict[str, Sequence[float]]:
    return {"compute_seconds": seconds}


class TestPlan:
    def test_tells_seconds_and_what_they_stand_on(self, federation: Federation) -> None:
        found = plan(federation)
        assert 0 < found["seconds_per_step"] < found["seconds_per_round"]
        assert "worker 'worker' has not told its speed" in found["assumptions"][0]
        assert any("north, south finished no job yet" in said for said in found["assumptions"])

    def test_with_nobody_there_it_says_so(self, federation: Federation) -> None:
        federation.clock.advance(seconds=200)
        assert plan(federation)["assumptions"][0].startswith("no worker can take it now")
        replicated = plan(federation, schedule="hierarchical", replicas=2)["assumptions"]
        assert "2 replicas take turns at 1 worker" in replicated

    def test_counts_the_secure_sums(self, federation: Federation) -> None:
        assert (plan(federation)["wire_bytes_per_sum"], plan(federation)["sums_per_round"]) == (0, 0)


class TestWorker:
    def test_that_told_its_speed_is_believed(self, federation: Federation) -> None:
        tell_speed(federation, layer_seconds=10.0)
        found = plan(federation)
        assert found["trunk_seconds_per_step"] > 20  # two layers lie in the trunk
        assert not any("told its speed" in said for said in found["assumptions"])

    def test_is_known_better_by_its_last_job(self, federation: Federation) -> None:
        tell_speed(federation)
        has_finished(federation, {"worker": computed(0.7)})
        assert plan(federation)["trunk_seconds_per_step"] == pytest.approx(0.7)

    def test_was_as_fast_with_fewer_silos_at_once(self, federation: Federation) -> None:
        tell_speed(federation)
        has_finished(federation, {"worker": computed(0.5)}, schedule="serial")
        together, apart = (
            plan(federation, schedule=schedule)["trunk_seconds_per_step"]
            for schedule in ("client-batching", "serial")
        )
        assert apart == pytest.approx(0.5)
        assert 0.5 < together < 1.0

    @pytest.mark.parametrize("replica", [0, 1])
    def test_is_known_by_the_replica_that_it_hosted(self, federation: Federation, replica: int) -> None:
        tell_speed(federation)
        federation.add_silo("west")
        names = ("north", "south", "west")
        asked = {"silos": [{"name": name, "dataset": "notes"} for name in names]}
        has_finished(
            federation,
            {"worker": computed(0.7)},
            replica=replica,
            **asked,
            silo_blocks="local",
            schedule="hierarchical",
            replicas=2,
        )
        share = asked["silos"][:2] if replica == 0 else asked["silos"][2:]
        assert plan(federation, silos=share)["trunk_seconds_per_step"] == pytest.approx(0.7)

    def test_is_not_known_by_a_meeting_of_replicas(self, federation: Federation) -> None:
        tell_speed(federation)
        has_finished(federation, {"worker": computed(0.5)})
        two = {"schedule": "hierarchical", "replicas": 2}
        has_finished(federation, {"worker": computed(0.7)}, replica=2, **two)
        assert plan(federation)["trunk_seconds_per_step"] == pytest.approx(0.5)

    def test_may_have_another_device_since_its_last_start(self, federation: Federation) -> None:
        tell_speed(federation)
        before = plan(federation)["trunk_seconds_per_step"]
        has_finished(federation, {"worker": computed(0.7)})
        federation.restart_worker()
        tell_speed(federation)
        assert plan(federation)["trunk_seconds_per_step"] == pytest.approx(before)

    def test_a_job_that_lost_a_silo_tells_nothing(self, federation: Federation) -> None:
        tell_speed(federation)
        before = plan(federation)["trunk_seconds_per_step"]
        job_id = has_finished(federation, {"worker": computed(0.7), "north": {}})
        with federation.world.server.database.write() as session:
            silo = session.scalars(select(Silo).where(Silo.name == "south")).one()
            session.get_one(JobSilo, (job_id, silo.id)).finish_outcome = "lost"
        assert plan(federation)["trunk_seconds_per_step"] == pytest.approx(before)


class TestSilo:
    def test_speed_follows_from_its_last_job(self, federation: Federation) -> None:
        has_finished(federation, {"north": computed(0.5, 0.5, 0.5)})
        found = plan(federation)
        assert found["silo_seconds_per_step"] == pytest.approx(0.5)  # the other one is taken for much faster
        assert any(said.startswith("south finished no job yet") for said in found["assumptions"])

    def test_a_job_of_the_same_precision_tells_more_than_the_last(self, federation: Federation) -> None:
        has_finished(federation, {"north": computed(0.5)}, precision="bf16")
        has_finished(federation, {"north": computed(2.0)})
        found = [
            plan(federation, precision=word)["silo_seconds_per_step"] for word in ("bf16", "fp32", "fp16")
        ]
        assert found == pytest.approx([0.5, 2.0, 2.0])

    def test_round_trip_is_the_shortest_and_twice_in_a_step(self, federation: Federation) -> None:
        steps = []
        for seconds in (2.02, 1.02, 3.0):
            trips = {"round_trip_seconds": (seconds, seconds + 7)}
            has_finished(federation, {"north": {**computed(0.5), **trips}})
            steps.append(plan(federation)["seconds_per_step"])
        assert steps[0] - steps[1] == pytest.approx(2.0)
        assert steps[1] == steps[2]
        said = "round trips between silo and gateway, the shortest ping of its last jobs: north 1.02e+03 ms"
        assert said in plan(federation)["assumptions"]

    def test_speed_of_a_job_of_another_kind_is_said_to_be_that(self, federation: Federation) -> None:
        tell_speed(federation)
        has_finished(federation, {"north": computed(0.5), "south": computed(0.5), "worker": computed(0.7)})
        assert not any("the speed of" in said for said in plan(federation)["assumptions"])
        found = plan(federation, gradient_checkpointing=True, adapter={"kind": "full"})["assumptions"]
        is_by = "is by a job with another adapter and another gradient_checkpointing: it may be far off"
        assert f"the speed of worker 'worker' {is_by}" in found
        assert f"the speed of north, south {is_by}" in found


class TestRows:
    """Silos of one core each; 3 rows of at most ``max_tokens``."""

    def seconds(self, federation: Federation, **changes: Any) -> tuple[float, float]:
        found = plan(federation, **changes)
        return found["silo_seconds_per_step"], found["trunk_seconds_per_step"]

    def test_that_were_short_are_taken_for_as_short_again(self, federation: Federation) -> None:
        tell_speed(federation)
        rows = {"batch_size": 4, "max_tokens": 512}
        told = {**computed(0.5), "valid_tokens": [4 * 64.0]}
        has_finished(federation, {"north": told, "south": told, "worker": computed(0.7)}, **rows)
        assert self.seconds(federation, **rows) == pytest.approx((0.5, 0.7))
        said = "rows are as long as in an earlier job: of 512 tokens, north's 64, south's 64 in the mean"
        assert said in plan(federation, **rows)["assumptions"]

    def test_of_a_data_set_are_found_behind_those_of_another(self, federation: Federation) -> None:
        notes = federation.spec()["silos"]
        north = federation.parties["north"]
        more = [ANNOUNCED, {**ANNOUNCED, "name": "letters"}]
        north.ok("PUT", "/silo/datasets", {"datasets": more})
        letters = [{"name": "north", "dataset": "letters"}, notes[1]]
        rows = {"batch_size": 4, "max_tokens": 512}
        for silos, seconds, length in ((notes, 0.5, 64.0), (letters, 3.0, 500.0)):
            told = {**computed(seconds), "valid_tokens": [4 * length]}
            has_finished(federation, {"north": told}, **rows, silos=silos)
        for silos, seconds in ((notes, 0.5), (letters, 3.0)):
            found = plan(federation, **rows, silos=silos)
            assert found["silo_seconds_per_step"] == pytest.approx(seconds)

    def test_of_another_length_are_taken_for_the_longest(self, federation: Federation) -> None:
        tell_speed(federation)
        told = {**computed(0.5), "valid_tokens": [4 * 64.0]}
        earlier = {"batch_size": 4, "max_tokens": 512}
        has_finished(federation, {"north": told, "south": told, "worker": computed(0.7)}, **earlier)
        silo, trunk = self.seconds(federation, batch_size=4, max_tokens=511)
        assert silo > 2 * 0.5
        assert trunk > 2 * 0.7
        said = "the rows of north, south are taken for max_tokens long each: 511"
        assert said in plan(federation, batch_size=4, max_tokens=511)["assumptions"]

    def test_bytes_go_by_them_beside_the_most_that_there_can_be(self, federation: Federation) -> None:
        rows = {"batch_size": 4, "max_tokens": 512}
        before = plan(federation, **rows)
        assert before["wire_bytes_per_step"] == before["max_wire_bytes_per_step"]
        told = {**computed(0.5), "valid_tokens": [4 * 64.0]}
        has_finished(federation, {"north": told, "south": told}, **rows)
        after = plan(federation, **rows)
        assert after["max_wire_bytes_per_step"] == before["max_wire_bytes_per_step"]
        assert after["wire_bytes_per_step"] == pytest.approx(before["wire_bytes_per_step"] / 8, rel=0.1)
