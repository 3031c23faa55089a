"""A split run on the platform: what is made of the numbers that its parties reported."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import platform_run
from bench.cases import Case
from bench.documents import Task
from bench.platform_job import Number, Told
from bench.platform_run import CpuRate
from splitlearn.parties import StepDone
from splitlearn.simulation.results import SiloResult, SimulationResult
from splitlearn.tasks.silo_data import DataReport

CASE = Case(dim=32, layers=3, adapter="full", clip=None, vocab_size=64, batch_size=2, max_tokens=16)
MODEL = Path("models/llama")
SECONDS = (9.0, 2.0, 4.0, 3.0)
TASK = Task(
    spec=CASE.spec(model_folder=MODEL, num_steps=4),
    model_folder=MODEL,
    vocab_size=64,
    threads=1,
    warmup=1,
    steps=2,
)


def _step(number: int, seconds: float) -> StepDone:
    return StepDone(
        silo="silo",
        round=1,
        step=number,
        loss=float(number),
        num_label_tokens=30,
        num_valid_tokens=32,
        applied=True,
        seconds=seconds,
    )


def _told() -> Told:
    silo = SiloResult(
        name="silo",
        report=DataReport(64, 58, 6, 0, 0, 0, 0, 928, 870, 16),
        steps=tuple(_step(number, seconds) for number, seconds in enumerate(SECONDS)),
        evaluations=(),
        wire_bytes=4000,
        eval_wire_bytes=10,
        resent_messages=0,
        artifact=None,
    )
    result = SimulationResult(
        status="completed",
        spec=TASK.spec,
        threads=1,
        silos=(silo,),
        seconds_per_step=5,
        num_steps=4,
        peak_memory_bytes={},
    )
    turn = Number(
        party="worker:w",
        name="turn_seconds",
        round=1,
        step=-1,
        value=18.4,
        received_at=datetime.fromtimestamp(0, tz=UTC),
    )
    return Told(result, (), (turn,))


class TestMeasured:
    def test_counts_the_measured_steps(self) -> None:
        measured = platform_run.measured(TASK, _told(), cpu_rate=1.5)
        assert measured.step_seconds == (2.0, 4.0)
        assert measured.cpu_seconds == 1.5 * 3.0
        assert measured.losses == (0.0, 1.0, 2.0, 3.0)
        assert measured.bytes_per_step == 1000.0

    def test_says_what_the_steps_leave_out(self) -> None:
        measured = platform_run.measured(TASK, _told(), cpu_rate=None)
        assert measured.between_seconds == pytest.approx(0.1)  # 18.4 s of the turn, 18 s of its 4 steps
        assert measured.cpu_seconds is None


class TestCpuRate:
    def test_is_unknown_where_all_steps_are_told_at_once(self) -> None:
        rate = CpuRate(TASK)
        for number, seconds in enumerate(SECONDS):
            rate(_step(number, seconds))
        assert rate.value is None

    def test_is_that_of_the_time_between(self) -> None:
        clock, spent = iter([100.0, 110.0]), iter([5.0, 20.0])
        rate = CpuRate(TASK, clock=lambda: next(clock), spent=lambda: next(spent))
        for number in range(4):  # the first and the last are not measured
            rate(_step(number, 1.0))
        assert rate.value == 1.5
