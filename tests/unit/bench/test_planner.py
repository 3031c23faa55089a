"""The planner's benchmark: its rows, and one of a tiny model measured for real."""

import asyncio
import os

import pytest

from bench.cases import Case
from bench.planner import QUICK, SHAPES, Shape, largest, mean_speed, measure, parse
from splitlearn.planning import Rate, Speed

TINY = Case(
    dim=32, layers=3, adapter="full", clip=1.0, vocab_size=64, num_heads=2, batch_size=2, max_tokens=16
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251 - the children need a PATH like anybody


class TestShapes:
    def test_are_of_every_schedule_and_every_way_of_the_blocks(self) -> None:
        assert {shape.schedule for shape in SHAPES} == {"serial", "client-batching", "hierarchical"}
        assert {shape.silo_blocks for shape in SHAPES} == {"local", "frozen", "averaged"}
        assert set(QUICK) < set(SHAPES)

    def test_memory_is_measured_of_the_widest_of_each_adapter(self) -> None:
        assert {(shape.case.dim, shape.case.adapter) for shape in largest(SHAPES)} == {
            (512, "full"),
            (512, "lora"),
        }

    def test_quick_leaves_memory_out(self) -> None:
        assert (parse([]).memory, parse(["--quick"]).memory) == (True, False)


def test_the_mean_of_speeds_takes_the_mean_of_their_times() -> None:
    one, other = (
        Speed(seconds, (Rate(64, rate),), rate, rate, tensor_seconds=seconds)
        for seconds, rate in ((1.0, 1.0), (3.0, 3.0))
    )
    mean = mean_speed([one, other])
    assert (mean.layer_seconds, mean.tensor_seconds) == (2.0, 2.0)
    assert mean.rates[0].flops_per_second == pytest.approx(1.5)  # 1 s and 1/3 s: 2/3 s
    assert mean.updates_per_second == pytest.approx(1.5)


@pytest.mark.slow
@pytest.mark.long
def test_a_row_of_the_platform_is_planned_from_a_job_before() -> None:
    shape = Shape(case=TINY, schedule="client-batching", num_silos=2, on_platform=True)
    row = asyncio.run(measure(shape, 2, ENVIRONMENT))
    assert row["planned_step_seconds"] / row["step_seconds"] == row["ratio"]
    assert row["bytes_ratio"] == pytest.approx(1.0, abs=0.1)
    assert not [told for told in row["assumptions"] if "finished no job" in told]


@pytest.mark.slow
def test_a_row_tells_what_was_planned_and_measured() -> None:
    shape = Shape(case=TINY, schedule="client-batching", num_silos=3, silo_blocks="averaged")
    row = asyncio.run(measure(shape, 2, ENVIRONMENT))
    assert row["planned_step_seconds"] / row["step_seconds"] == row["ratio"]
    # Bytes hang on no machine: tensors, sums, envelopes.
    assert row["bytes_ratio"] == pytest.approx(1.0, abs=0.1)
    assert len(row["speeds"]) == 2
