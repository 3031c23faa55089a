"""The benchmark of schedules: its rows, and one of tiny models measured for real."""

import argparse
import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cases import Case
from bench.documents import Measured
from bench.federation_run import FederationRequest
from bench.model_folder import write_model
from bench.pinned_pairs import DEEP, step_seconds
from bench.schedules import LARGE, SMALL, cells, federation_spec, parse, run_federation

TINY = Case(
    dim=32, layers=3, adapter="full", clip=1.0, vocab_size=64, num_heads=2, batch_size=2, max_tokens=16
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251 - the children need a PATH like anybody
ROUND_TRIP_SECONDS = 0.1


def rows(*arguments: str) -> list[tuple[int, int, int]]:
    options: argparse.Namespace = parse(arguments)
    return [(case.dim, number, trip) for case, number, trip in cells(options)]


class TestCells:
    def test_are_all_numbers_of_silos_and_round_trips(self) -> None:
        small = [(SMALL.dim, number, trip) for number in (2, 4, 8) for trip in (0, 20, 100)]
        assert rows() == [*small, (LARGE.dim, 8, 100)]

    def test_are_one_where_it_must_be_quick(self) -> None:
        assert rows("--quick") == [(SMALL.dim, 8, 100)]

    def test_are_those_asked_for(self) -> None:
        asked = ("--dim", "512", "--silos", "3", "--round-trip-ms", "50")
        assert rows(*asked) == [(512, 3, 50)]


class TestFederationSpec:
    def test_trains_the_case_with_so_many_silos(self, tmp_path: Path) -> None:
        spec = federation_spec(
            replace(SMALL, clip=None), tmp_path, schedule="serial", num_silos=3, steps=5, seed=9
        )
        assert [silo.name for silo in spec.silos] == ["silo-1", "silo-2", "silo-3"]
        assert (spec.schedule, spec.steps_per_round, spec.max_grad_norm, spec.seed) == ("serial", 5, None, 9)
        assert (spec.silo_blocks, spec.rounds) == ("local", 1)


class TestPairs:
    def test_the_slower_pair_decides(self) -> None:
        fast, slow = (
            Measured(step_seconds=(seconds,) * 3, cpu_seconds=None, bytes_per_step=0, losses=())
            for seconds in (1.0, 2.0)
        )
        assert step_seconds([fast, slow]) == 2.0

    def test_the_model_is_deep_enough_for_a_trunk_to_matter(self) -> None:
        assert (DEEP.layers, DEEP.vocab_size) == (12, 1024)


@pytest.mark.slow
def test_a_federation_waits_for_its_round_trips(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_model(TINY, folder)
    spec = federation_spec(TINY, folder, schedule="client-batching", num_silos=2, steps=3)
    request = FederationRequest(
        spec=spec, model_folder=folder, vocab_size=64, round_trip_seconds=ROUND_TRIP_SECONDS, warm_ups=1
    )
    answer = asyncio.run(run_federation(request, ENVIRONMENT))
    assert len(answer.step_seconds) == 2
    # A step cannot be through before two round trips are: the line's clock, and a loop's, differ by less.
    assert min(answer.step_seconds) > 2 * ROUND_TRIP_SECONDS * 0.95
    payload = TINY.num_tokens * TINY.payload_bytes_per_token
    # Envelopes, the norms of some thirty tensors, and a turn's begin and end over three steps come on top.
    assert payload < answer.bytes_per_step < 1.25 * payload
