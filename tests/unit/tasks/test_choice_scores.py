"""What an evaluation of a choice says beside its accuracy."""

import pytest

from splitlearn.spec import ChoiceTask, SftTask
from splitlearn.tasks import (
    IGNORED,
    ClassCounts,
    EvaluationPlan,
    EvaluationResult,
    Example,
    RowScore,
    TokenRow,
    count_classes,
    macro_f1,
)

ANSWERS = {"no": "n", "yes": "y", "maybe": "m"}


def example(right: int, *, group: bytes = b"", **facts: tuple[bool, ...] | tuple[float, ...]) -> Example:
    rows = tuple(TokenRow((1, 2 + n), (IGNORED, 2 + n)) for n in range(3))
    return Example(rows, right, bytes(16), group=group, **facts)  # type: ignore[arg-type]


def evaluated(task: ChoiceTask | SftTask, examples: list[Example], chosen: list[int]) -> EvaluationResult:
    plan = EvaluationPlan(examples, batch_size=2, pad_token_id=0, task=task)
    scores = [RowScore(0.0 if index == best else -1.0, 1) for best in chosen for index in range(3)]
    return plan.result(scores)


def scores(task: ChoiceTask, examples: list[Example], chosen: list[int]) -> dict[str, float]:
    return {score.name: score.value for score in evaluated(task, examples, chosen).scores}


class TestClasses:
    def test_counts(self) -> None:
        assert count_classes([0, 0, 1, 2], [0, 1, 1, 1], num_classes=3) == (
            ClassCounts(2, 1, 1),
            ClassCounts(1, 3, 1),
            ClassCounts(1, 0, 0),
        )

    def test_precision_recall_and_f1(self) -> None:
        counts = ClassCounts(rows=4, said=2, right=1)
        assert (counts.precision, counts.recall, counts.f1) == pytest.approx((0.5, 0.25, 1 / 3))

    def test_of_a_class_that_never_occurs_are_zero(self) -> None:
        counts = ClassCounts(0, 0, 0)
        assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)

    def test_macro_f1_is_over_the_classes_that_occur(self) -> None:
        assert macro_f1([ClassCounts(2, 2, 2), ClassCounts(0, 0, 0)]) == 1
        assert macro_f1([ClassCounts(2, 2, 2), ClassCounts(0, 1, 0)]) == 0.5
        assert macro_f1([]) == 0


class TestScores:
    def test_each_answer_has_its_own(self) -> None:
        task = ChoiceTask(answers=ANSWERS, positive="yes")
        found = scores(task, [example(0), example(1), example(1)], [0, 1, 0])
        assert found == {
            "f1_macro": pytest.approx(2 / 3),
            "f1": pytest.approx(2 / 3),
            "precision_0": 0.5,
            "recall_0": 1.0,
            "f1_0": pytest.approx(2 / 3),
            "precision_1": 1.0,
            "recall_1": 0.5,
            "f1_1": pytest.approx(2 / 3),
            "precision_2": 0.0,
            "recall_2": 0.0,
            "f1_2": 0.0,
        }

    def test_stand_on_as_many_rows_as_the_smallest_class_has(self) -> None:
        found = evaluated(ChoiceTask(answers=ANSWERS), [example(0), example(0), example(1)], [0, 0, 1])
        assert {score.num_rows for score in found.scores} == {1}

    def test_many_classes_are_not_told_one_by_one(self) -> None:
        task = ChoiceTask(answers={str(n): f"{n}." for n in range(33)})
        assert set(scores(task, [example(0)], [0])) == {"f1_macro"}

    def test_exact_match_counts_groups_of_which_every_row_is_right(self) -> None:
        task = ChoiceTask(answers=ANSWERS, group="question")
        rows = [example(0, group=b"a"), example(1, group=b"a"), example(0, group=b"b"), example(1)]
        found = evaluated(task, rows, [0, 0, 0, 1])
        [exact] = [score for score in found.scores if score.name == "exact_match"]
        assert (exact.value, exact.num_rows) == pytest.approx((2 / 3, 3))
        assert found.accuracy == 0.75

    def test_of_a_rows_own_candidates_any_that_is_as_good_is_right(self) -> None:
        task = ChoiceTask(candidates="entities")
        row = example(0, exact=(True, False, True), token_f1=(1.0, 0.5, 1.0))
        found = evaluated(task, [row, row], [2, 1])
        assert found.accuracy == 0.5
        assert {score.name: score.value for score in found.scores} == {"token_f1": 0.75, "exact_match": 0.5}

    def test_other_tasks_have_none(self) -> None:
        assert evaluated(SftTask(), [example(0)], [0]).scores == ()


class TestGroupsUnderALimit:
    def test_a_group_that_would_be_torn_stays_away(self) -> None:
        rows = [example(0, group=b"a"), example(0, group=b"b"), example(0, group=b"b")]
        assert EvaluationPlan(rows, batch_size=1, pad_token_id=0, max_examples=2).num_rows == 3

    def test_but_not_where_it_is_all_there_is(self) -> None:
        rows = [example(0, group=b"a"), example(0, group=b"a")]
        assert EvaluationPlan(rows, batch_size=1, pad_token_id=0, max_examples=1).num_rows == 3
