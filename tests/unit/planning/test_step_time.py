import pytest

from splitlearn.planning.step_time import (
    Cores,
    Line,
    ReplicaStep,
    SiloCost,
    TrunkCost,
    busy_seconds,
    client_batching_step_seconds,
    hierarchical_step_seconds,
    ideal_gain,
)

SILO = SiloCost(batch_seconds=2.0, update_seconds=0.5, line=Line(0.1))
TRUNK = TrunkCost(batch_seconds=3.0, update_seconds=0.25)


class TestSerial:
    def test_adds_what_both_compute_and_two_round_trips(self) -> None:
        assert client_batching_step_seconds([SILO], TRUNK) == pytest.approx(2 + 3 + 2 * 0.1 + 0.5 + 0.25)

    def test_bytes_take_their_time_on_a_narrow_line(self) -> None:
        narrow = SiloCost(batch_seconds=2.0, bytes_per_batch=1000, line=Line(0.0, bytes_per_second=500))
        assert client_batching_step_seconds([narrow], TRUNK) == pytest.approx(2 + 2 + 3 + 0.25)

    def test_each_further_micro_batch_takes_as_long_as_the_busier_side(self) -> None:
        one, three = (client_batching_step_seconds([SILO], TRUNK, micro_batches=number) for number in (1, 3))
        assert three - one == pytest.approx(2 * 3.0)

    def test_on_one_core_micro_batches_do_not_overlap(self) -> None:
        one, two = (
            client_batching_step_seconds([SILO], TRUNK, micro_batches=number, cores=Cores(1))
            for number in (1, 2)
        )
        assert two - one == pytest.approx(2.0 + 3.0)

    def test_every_message_costs_both_sides(self) -> None:
        silo = SiloCost(batch_seconds=2.0, message_seconds=0.01)
        trunk = TrunkCost(batch_seconds=3.0, message_seconds=0.02)
        assert client_batching_step_seconds([silo], trunk) == pytest.approx(5 + 4 * 0.01 + 4 * 0.02)


class TestClientBatching:
    def test_silos_on_machines_of_their_own_take_as_long_as_the_slowest(self) -> None:
        silos = [SILO, SiloCost(batch_seconds=4.0, line=Line(0.3))]
        assert client_batching_step_seconds(silos, TRUNK) == pytest.approx(4 + 3 + 2 * 0.3 + 0.5 + 0.25)

    def test_on_shared_cores_their_work_adds_up(self) -> None:
        seconds = client_batching_step_seconds([SILO] * 4, TRUNK, cores=Cores(2))
        assert seconds == pytest.approx(4 * 2 / 2 + 3 + 0.2 + 4 * 0.5 / 2 + 0.25)

    def test_in_one_process_the_interpreter_is_held_by_one_at_a_time(self) -> None:
        silos = [SiloCost(batch_seconds=2.0, held_seconds=1.5)] * 4
        seconds = client_batching_step_seconds(silos, TRUNK, cores=Cores(4, is_one_process=True))
        assert seconds == pytest.approx(4 * 1.5 + 3 + 0.25)

    def test_all_bytes_share_the_workers_line(self) -> None:
        silos = [SiloCost(batch_seconds=1.0, bytes_per_batch=100)] * 3
        trunk = TrunkCost(batch_seconds=1.0, bytes_per_second=50)
        assert client_batching_step_seconds(silos, trunk) == pytest.approx(2 + 300 / 50)


def steps(*seconds: float) -> list[ReplicaStep]:
    return [ReplicaStep(each, busy_seconds=each) for each in seconds]


class TestHierarchical:
    def test_replicas_run_side_by_side(self) -> None:
        assert hierarchical_step_seconds(steps(3.0, 5.0), num_workers=2) == 5.0

    def test_with_fewer_workers_they_take_turns(self) -> None:
        assert hierarchical_step_seconds(steps(3.0, 5.0, 2.0), num_workers=2) == 5.0 + 2.0

    def test_the_average_is_spread_over_a_round(self) -> None:
        seconds = hierarchical_step_seconds(
            steps(3.0, 3.0), num_workers=2, average_seconds=10, steps_per_round=20
        )
        assert seconds == 3.5

    def test_on_shared_cores_all_that_is_computed_adds_up(self) -> None:
        assert hierarchical_step_seconds(steps(3.0, 3.0, 3.0, 3.0), num_workers=4, cores=Cores(2)) == 6.0

    def test_on_shared_cores_one_computes_while_another_waits(self) -> None:
        mostly_waiting = [ReplicaStep(3.0, busy_seconds=0.5)] * 4
        assert hierarchical_step_seconds(mostly_waiting, num_workers=4, cores=Cores(2)) == 3.0

    def test_in_one_process_the_interpreter_serves_one_at_a_time(self) -> None:
        calling = [ReplicaStep(3.0, busy_seconds=3.0, held_seconds=2.0)] * 4
        one = Cores(8, is_one_process=True)
        assert hierarchical_step_seconds(calling, num_workers=4, cores=one) == 8.0
        assert hierarchical_step_seconds(calling, num_workers=4, cores=Cores(8)) == 3.0


class TestBusy:
    def test_adds_up_what_every_party_computes(self) -> None:
        assert busy_seconds([SILO, SILO], TRUNK, micro_batches=2) == 2 * (2 * 2.0 + 3.0) + 2 * 0.5 + 0.25


class TestIdealGain:
    def test_is_the_number_of_silos_where_only_the_way_counts(self) -> None:
        assert ideal_gain(8, round_trip_seconds=0.1, batch_seconds=0.0) == pytest.approx(8)

    def test_is_nothing_where_only_computing_counts(self) -> None:
        assert ideal_gain(8, round_trip_seconds=0.0, batch_seconds=0.2) == pytest.approx(1)

    def test_between(self) -> None:
        found = ideal_gain(8, round_trip_seconds=0.1, batch_seconds=0.1)
        assert found == pytest.approx(8 * 0.3 / (0.2 + 0.8))
