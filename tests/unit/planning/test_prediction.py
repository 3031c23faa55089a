from dataclasses import replace

import pytest

from splitlearn.planning import predict, sum_bytes, sums_per_round
from splitlearn.spec import JobSpec
from tests.unit.planning.made_up import LAYERS, SPEED, VOCABULARY, WIDTH, around, cut_of, job, llama

LAYER_NUMBERS = 4 * WIDTH * WIDTH + 3 * WIDTH * 96 + 2 * WIDTH
ENDS_NUMBERS = 2 * LAYER_NUMBERS + 2 * VOCABULARY * WIDTH + WIDTH


def step_seconds(spec: JobSpec, *, round_trip_seconds: float = 0.0, num_workers: int = 1) -> float:
    folder = llama()
    places = around(spec, round_trip_seconds=round_trip_seconds, num_workers=num_workers)
    return predict(spec, folder, cut_of(folder), places).step_seconds


class TestPredict:
    def test_a_longer_way_takes_two_round_trips_more(self) -> None:
        for schedule in ("serial", "client-batching"):
            near, far = (
                step_seconds(job(schedule=schedule), round_trip_seconds=seconds) for seconds in (0.0, 0.1)
            )
            assert far - near == pytest.approx(0.2)

    def test_a_round_has_every_silos_steps(self) -> None:
        folder = llama()
        for schedule, steps in (("serial", 4 * 5), ("client-batching", 5)):
            spec = job(schedule=schedule, steps_per_round=5)
            found = predict(spec, folder, cut_of(folder), around(spec))
            assert found.round_seconds == pytest.approx(steps * found.step_seconds)

    def test_replicas_on_a_worker_each_take_as_long_as_one_with_its_silos(self) -> None:
        replicated = job(4, schedule="hierarchical", replicas=2)
        assert step_seconds(replicated, num_workers=2) == pytest.approx(step_seconds(job(2)))

    def test_replicas_on_one_worker_take_turns(self) -> None:
        replicated = job(4, schedule="hierarchical", replicas=2)
        assert step_seconds(replicated) == pytest.approx(2 * step_seconds(job(2)))

    def test_bytes_are_those_of_the_tensors_and_a_little_more(self) -> None:
        folder, spec = llama(), job(codec="fp32", accumulation_steps=3)
        found = predict(spec, folder, cut_of(folder), around(spec))
        tensors = 3 * 4 * (2 * 16) * WIDTH * 4
        assert tensors < found.step_bytes < tensors + 3 * 4 * 150

    def test_the_last_layer_more_in_the_trunk_is_the_trunks_work(self) -> None:
        spec = job()
        small, large = llama(), llama(layers=LAYERS + 2)
        few, more = (predict(spec, each, cut_of(each), around(spec)) for each in (small, large))
        called = SPEED.layer_seconds  # the segment itself, whatever its layers
        assert more.trunk_seconds == pytest.approx(2 * few.trunk_seconds - called)
        assert more.silo_seconds == few.silo_seconds

    def test_shorter_rows_take_less_but_the_most_bytes_stay(self) -> None:
        folder, spec = llama(), job()
        longest = around(spec)
        places = {name: replace(place, row_tokens=8.0) for name, place in longest.silos.items()}
        full, half = (
            predict(spec, folder, cut_of(folder), each) for each in (longest, replace(longest, silos=places))
        )
        asked_short = predict(job(max_tokens=8), folder, cut_of(folder), longest)
        assert half.step_seconds == pytest.approx(asked_short.step_seconds)
        assert half.step_seconds < full.step_seconds
        assert half.max_step_bytes == full.max_step_bytes == full.step_bytes
        assert half.step_bytes == asked_short.step_bytes

    def test_of_silos_with_rows_of_two_lengths_the_trunk_computes_both(self) -> None:
        folder, spec = llama(), job(2)
        known = around(spec)
        places = {"silo-0": replace(known.silos["silo-0"], row_tokens=8.0), "silo-1": known.silos["silo-1"]}
        found = predict(spec, folder, cut_of(folder), replace(known, silos=places))
        alike = predict(job(2, max_tokens=12), folder, cut_of(folder), known)
        assert found.trunk_seconds == pytest.approx(alike.trunk_seconds)

    def test_the_slower_of_two_workers_is_waited_for(self) -> None:
        folder, spec = llama(), job(4, schedule="hierarchical", replicas=2)
        known = around(spec, num_workers=2)
        slow = replace(known, trunks=[SPEED, SPEED.times(0.5)])
        alike, unlike = (predict(spec, folder, cut_of(folder), each) for each in (known, slow))
        assert unlike.trunk_seconds == pytest.approx(2 * alike.trunk_seconds)
        assert unlike.step_seconds - alike.step_seconds == pytest.approx(alike.trunk_seconds)


class TestSums:
    def test_a_sum_is_the_blocks_there_and_their_total_back(self) -> None:
        folder, spec = llama(), job(3, silo_blocks="averaged")
        found = predict(spec, folder, cut_of(folder), around(spec))
        assert found.sum_bytes == sum_bytes(ENDS_NUMBERS, num_silos=3)
        assert 8 * ENDS_NUMBERS < found.sum_bytes < 8 * ENDS_NUMBERS + 3000

    def test_no_average_has_none(self) -> None:
        folder, spec = llama(), job(3)
        found = predict(spec, folder, cut_of(folder), around(spec))
        assert (found.sum_bytes, found.sums_per_round) == (0, 0)

    def test_every_few_steps_has_several_a_round(self) -> None:
        spec = job(3, silo_blocks="averaged", steps_per_round=7, averaging={"every_steps": 3})
        assert sums_per_round(spec) == 3

    def test_on_a_long_way_a_sum_takes_round_trips(self) -> None:
        folder, spec = llama(), job(3, silo_blocks="averaged", steps_per_round=1)
        near, far = (
            predict(spec, folder, cut_of(folder), around(spec, round_trip_seconds=seconds)).round_seconds
            for seconds in (0.0, 0.1)
        )
        assert far - near == pytest.approx(0.2 + 0.4)
