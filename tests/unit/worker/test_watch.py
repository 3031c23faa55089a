"""The worker's numbers, and what it lacks."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from splitlearn.control_plane.requests import Absent, Back
from splitlearn.parties import TrunkStepped
from splitlearn.processes import free_port
from worker.watch import WorkerWatch


@pytest.fixture
def watch(tmp_path: Path) -> WorkerWatch:
    return WorkerWatch(broker_url=None, broker_dir=tmp_path)


def read(watch: WorkerWatch) -> dict[str, float]:
    return {
        "".join([sample.name, *(f" {value}" for value in sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(watch.to_text())
        for sample in family.samples
    }


class TestNumbers:
    def test_split_a_step_into_computing_and_waiting(self, watch: WorkerWatch) -> None:
        watch.stepped(TrunkStepped(round=1, step=0, num_label_tokens=12, seconds=1.0, compute_seconds=0.25))
        found = read(watch)
        assert found["trunkline_worker_steps_total"] == 1
        assert found["trunkline_worker_label_tokens_total"] == 12
        assert found["trunkline_worker_step_seconds_sum trunk"] == 0.25
        assert found["trunkline_worker_step_seconds_sum waiting"] == 0.75

    def test_count_rounds_and_what_crossed(self, watch: WorkerWatch) -> None:
        watch.round_done(wire_bytes=100, peak_memory_bytes=5.0)
        watch.round_done(wire_bytes=20, peak_memory_bytes=7.0)
        found = read(watch)
        assert found["trunkline_worker_rounds_total"] == 2
        assert found["trunkline_worker_wire_bytes_total"] == 120
        assert found["trunkline_worker_peak_memory_bytes"] == 7

    def test_tell_of_a_lease_only_while_there_is_one(self, watch: WorkerWatch) -> None:
        assert read(watch)["trunkline_worker_lease_age_seconds"] == 0
        watch.began()
        found = read(watch)
        assert found["trunkline_worker_hosting"] == 1
        assert found["trunkline_worker_lease_age_seconds"] > 0
        watch.ended("drain_now")
        found = read(watch)
        assert (found["trunkline_worker_hosting"], found["trunkline_worker_lease_age_seconds"]) == (0, 0)
        assert found["trunkline_worker_attempts_total drain_now"] == 1


class TestReadiness:
    def test_wants_a_log_in_and_names_an_absent_control_plane(self, watch: WorkerWatch) -> None:
        assert watch.not_ready() == ["control plane: not logged in yet"]
        watch.reach.logged_in()
        assert watch.not_ready() == []
        watch.reach.change(Absent("no answer", 1.0))
        assert watch.not_ready() == ["control plane: no answer"]
        watch.reach.change(Back(3.0))
        assert watch.not_ready() == []

    def test_names_a_broker_folder_that_is_gone(self, tmp_path: Path) -> None:
        watch = WorkerWatch(broker_url=None, broker_dir=tmp_path / "gone")
        watch.reach.logged_in()
        assert watch.not_ready() == [f"broker: there is no folder {tmp_path / 'gone'}"]

    def test_names_a_redis_that_does_not_answer_but_not_its_password(self, tmp_path: Path) -> None:
        url = f"redis://:secret@127.0.0.1:{free_port('127.0.0.1')}/0"
        watch = WorkerWatch(broker_url=url, broker_dir=tmp_path)
        watch.reach.logged_in()
        assert watch.not_ready() == ["broker: Redis does not answer (ConnectionError)"]
