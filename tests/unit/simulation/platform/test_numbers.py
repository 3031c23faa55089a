"""Metrics of the API become what the parties had reported."""

import math

import pytest

from splitlearn.parties import Evaluated, Progress, RoundFinished, StepDone
from splitlearn.simulation.platform.numbers import JobNumbers, Point
from splitlearn.tasks import Score

STEP = {"loss": 1.5, "label_tokens": 10.0, "valid_tokens": 12.0, "seconds": 0.25, "applied": 1.0}

EVALUATED = {"eval_loss": 0.5, "eval_tokens": 7.0}


@pytest.fixture
def told() -> list[Progress]:
    return []


@pytest.fixture
def numbers(told: list[Progress]) -> JobNumbers:
    return JobNumbers(is_choice=False, forward=told.append)


def _points(party: str, values: dict[str, float], *, round_number: int = 1, step: int = 0) -> list[Point]:
    return [Point(party, name, round_number, step, value) for name, value in values.items()]


class TestSteps:
    def test_is_told_once_it_is_whole(self, numbers: JobNumbers, told: list[Progress]) -> None:
        first, *rest = _points("silo:north", STEP)
        numbers.take([first])
        assert told == []
        numbers.take(rest)
        assert told == [StepDone("north", 1, 0, 1.5, 10, 12, applied=True, seconds=0.25)]

    def test_is_told_once_only(self, numbers: JobNumbers, told: list[Progress]) -> None:
        numbers.take(_points("silo:north", STEP))
        numbers.take(_points("silo:north", STEP))
        assert len(told) == 1

    def test_a_loss_that_was_not_sent_is_no_number(self, numbers: JobNumbers) -> None:
        values = {name: value for name, value in STEP.items() if name != "loss"}
        numbers.take(_points("silo:north", values))
        [step] = numbers.steps("north")
        assert math.isnan(step.loss)

    def test_stand_in_the_order_of_their_numbers(self, numbers: JobNumbers) -> None:
        for step in (10, 9, 2):
            numbers.take(_points("silo:north", STEP, step=step))
        assert [step.step for step in numbers.steps("north")] == [2, 9, 10]

    def test_of_one_silo_are_not_anothers(self, numbers: JobNumbers) -> None:
        numbers.take(_points("silo:north", STEP))
        assert numbers.steps("nor") == numbers.steps("south") == ()


class TestRounds:
    def test_an_evaluation_is_told(self, numbers: JobNumbers, told: list[Progress]) -> None:
        numbers.take(_points("silo:north", EVALUATED, step=-1))
        assert told == [Evaluated("north", 1, 0.5, 7, None)]
        assert numbers.evaluations("north") == tuple(told)

    def test_one_before_training_is_told_too(self, numbers: JobNumbers, told: list[Progress]) -> None:
        numbers.take(_points("silo:north", EVALUATED, round_number=0, step=-1))
        assert told == [Evaluated("north", 0, 0.5, 7, None)]

    def test_a_choice_waits_for_its_accuracy(self, told: list[Progress]) -> None:
        numbers = JobNumbers(is_choice=True, forward=told.append)
        numbers.take(_points("silo:north", {"eval_loss": 0.5, "eval_tokens": 7.0}, step=-1))
        assert told == []
        numbers.take(_points("silo:north", {"accuracy": 0.75}, step=-1))
        assert told == [Evaluated("north", 1, 0.5, 7, 0.75)]

    def test_a_choice_has_its_scores(self, told: list[Progress]) -> None:
        numbers = JobNumbers(is_choice=True, forward=told.append)
        values = {"f1": 0.5, "precision_1": 0.25, "eval_rows": 9.0, "accuracy": 0.75, "wire_bytes": 4.0}
        numbers.take(_points("silo:north", {"eval_loss": 0.5, "eval_tokens": 7.0, **values}, step=-1))
        [found] = numbers.evaluations("north")
        assert found.scores == (Score("f1", 0.5, 9), Score("precision_1", 0.25, 9))
        assert found.num_rows == 9

    def test_an_evaluation_that_is_withheld_is_told_as_that(self, told: list[Progress]) -> None:
        numbers = JobNumbers(is_choice=True, forward=told.append)
        numbers.take(_points("silo:north", {"eval_rows": 4.0, "eval_withheld_below": 10.0}, step=-1))
        [found] = numbers.evaluations("north")
        assert (found.num_rows, found.withheld_below, found.num_tokens) == (4, 10, 0)
        assert math.isnan(found.loss)
        assert len(told) == 1

    def test_the_workers_word_ends_a_round(self, numbers: JobNumbers, told: list[Progress]) -> None:
        values = {"seconds_per_step": 0.5, "turn_steps": 4.0}
        numbers.take(_points("worker:one", values, round_number=2, step=-1))
        assert told == [RoundFinished(2)]
        assert (numbers.last_round, numbers.num_steps(), numbers.seconds_per_step()) == (2, 4, [0.5])

    def test_bytes_are_the_newest(self, numbers: JobNumbers) -> None:
        for number in (1, 2):
            values = {"wire_bytes": 100.0 * number, "eval_wire_bytes": 10.0 * number}
            numbers.take(_points("silo:north", values, round_number=number, step=-1))
        assert (numbers.wire_bytes("north").training, numbers.wire_bytes("north").evaluation) == (200, 20)

    def test_memory_is_the_largest_of_a_kind(self, numbers: JobNumbers) -> None:
        for silo, value in (("north", 5.0), ("south", 9.0)):
            numbers.take(_points(f"silo:{silo}", {"peak_memory_bytes": value}, step=-1))
        assert numbers.peak_memory_bytes("silo") == 9
        assert numbers.peak_memory_bytes("worker") is None


class TestResumed:
    def test_what_the_earlier_run_had_finished_is_counted_but_not_told(self, told: list[Progress]) -> None:
        numbers = JobNumbers(is_choice=False, forward=told.append, resumed_from=1)
        round_of_worker = {"seconds_per_step": 0.5, "turn_steps": 1.0}
        for round_number in (1, 2):
            numbers.take(_points("silo:north", STEP, round_number=round_number, step=round_number - 1))
            numbers.take(_points("worker:one", round_of_worker, round_number=round_number, step=-1))
        assert [progress.round for progress in told if isinstance(progress, RoundFinished)] == [2]
        assert [progress.step for progress in told if isinstance(progress, StepDone)] == [1]
        assert [step.step for step in numbers.steps("north")] == [0, 1]
        assert (numbers.last_round, numbers.num_steps()) == (2, 2)
