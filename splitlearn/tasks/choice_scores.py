"""What an evaluation of ``choice`` says beside the accuracy: F1, per class, exact match, words shared.

Torch-free.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from splitlearn.spec import ChoiceTask, TaskSpec
from splitlearn.tasks.rows import Example
from splitlearn.tasks.texts import are_fixed

MAX_CLASSES_TOLD = 32
"""With more candidates, no number is told of each."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number of an evaluation.

    Attributes:
        name: ``f1``, ``f1_macro``, ``exact_match``, ``token_f1``; of the class at index i, ``precision_i``,
            ``recall_i`` and ``f1_i``.
        value: In [0, 1].
        num_rows: How many rows it stands on: of numbers that tell of classes, as many as the smallest class
            has, since the others' numbers would give it away; of groups, how many there are.
    """

    name: str
    value: float
    num_rows: int


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """How one candidate answer fared.

    Attributes:
        rows: Rows whose right answer it is.
        said: Rows for which it scored best.
        right: Rows of which both hold.
    """

    rows: int
    said: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the rows for which it scored best that it is right for; 0 where there are none."""
        return self.right / self.said if self.said else 0.0

    @property
    def recall(self) -> float:
        """Share of the rows that it is right for for which it scored best; 0 where there are none."""
        return self.right / self.rows if self.rows else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where both are."""
        return 2 * self.right / (self.rows + self.said) if self.right else 0.0


def count_classes(right: Sequence[int], said: Sequence[int], *, num_classes: int) -> tuple[ClassCounts, ...]:
    """Count for each class how often it is right, was said, and both."""
    pairs = list(zip(right, said, strict=True))
    return tuple(
        ClassCounts(
            rows=sum(wanted == index for wanted, _ in pairs),
            said=sum(chosen == index for _, chosen in pairs),
            right=sum(wanted == chosen == index for wanted, chosen in pairs),
        )
        for index in range(num_classes)
    )


def macro_f1(classes: Sequence[ClassCounts]) -> float:
    """Return the mean F1 of the classes that are right or were said at least once."""
    found = [counts.f1 for counts in classes if counts.rows or counts.said]
    return sum(found) / len(found) if found else 0.0


def choice_scores(
    examples: Sequence[Example], chosen: Sequence[int], *, task: TaskSpec | None
) -> tuple[Score, ...]:
    """Return what a task's evaluation says beside the accuracy.

    Args:
        examples: As evaluated.
        chosen: The candidate that scored best, of each.
        task: The specification's; None, or another than ``choice``, says nothing.
    """
    if not isinstance(task, ChoiceTask):
        return ()
    scores: list[Score] = []
    if task.answers:
        scores += _of_classes(task, examples, chosen)
    if any(example.token_f1 for example in examples):
        shared = sum(example.token_f1[best] for example, best in zip(examples, chosen, strict=True))
        scores.append(Score("token_f1", shared / len(examples), len(examples)))
    if task.group is not None or task.candidates is not None:
        scores.append(_exact_match(examples, chosen))
    return tuple(scores)


def is_right(example: Example, best: int) -> bool:
    """Return whether a candidate is right, or as good as the right one."""
    return example.exact[best] if example.exact else best == example.right


def _of_classes(task: ChoiceTask, examples: Sequence[Example], chosen: Sequence[int]) -> list[Score]:
    classes = count_classes([example.right for example in examples], chosen, num_classes=len(task.answers))
    fewest = min(counts.rows for counts in classes if counts.rows)
    scores = [Score("f1_macro", macro_f1(classes), fewest)]
    if task.positive is not None:
        scores.append(Score("f1", classes[list(task.answers).index(task.positive)].f1, fewest))
    if len(classes) <= MAX_CLASSES_TOLD and are_fixed(task):
        for index, counts in enumerate(classes):
            scores += [
                Score(f"precision_{index}", counts.precision, fewest),
                Score(f"recall_{index}", counts.recall, fewest),
                Score(f"f1_{index}", counts.f1, fewest),
            ]
    return scores


def _exact_match(examples: Sequence[Example], chosen: Sequence[int]) -> Score:
    groups: dict[bytes | int, bool] = defaultdict(lambda: True)
    for number, (example, best) in enumerate(zip(examples, chosen, strict=True)):
        groups[example.group or number] &= is_right(example, best)
    return Score("exact_match", sum(groups.values()) / len(groups), len(groups))
