"""From a record to the texts that a task makes of it. Torch-free."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from splitlearn.errors import DataError
from splitlearn.records import Record, known_names
from splitlearn.spec import CausalLmTask, ChoiceTask, SftTask
from splitlearn.tasks.chance import keyed_digest
from splitlearn.tasks.template import Template

Task = CausalLmTask | SftTask | ChoiceTask
_MAX_LABELS_SHOWN = 5


class UnknownLabelsError(DataError):
    """Labels of a data set are not among a task's candidate answers.

    Attributes:
        num_unknown: Rows with such a label.
        num_rows: Rows looked at.
    """

    code = "unknown_labels"

    def __init__(self, message: str, *, column: str, num_unknown: int, num_rows: int) -> None:
        super().__init__(message)
        self.num_unknown, self.num_rows = num_unknown, num_rows
        self.public = (
            f"{num_unknown} of {num_rows} rows have a label in column {column!r} that is not among the "
            "task's answers"
        )


@dataclass(frozen=True, slots=True)
class RowTexts:
    """The texts of one row.

    Attributes:
        prompt: What the model reads; None for ``causal-lm``, which has no prompt.
        answers: What it may write: the whole text, the answer, or every candidate.
        right: Index of the right answer.
    """

    prompt: str | None
    answers: tuple[str, ...]
    right: int = 0

    @property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that equal texts share."""
        return keyed_digest("row", self.prompt or "", self.answers[self.right])[:16]

    def __repr__(self) -> str:
        """Say counts and no text: rows are private."""
        return f"RowTexts({len(self.answers)} answers)"


def row_texts(records: Iterable[Record], *, task: Task) -> Iterator[RowTexts]:
    """Yield the texts of every row.

    Raises:
        DataError: A template is malformed or names a column that a row lacks.
        UnknownLabelsError: After the last row: some labels are not among the candidates.
    """
    if isinstance(task, CausalLmTask):
        text = Template.parse(task.text)
        return (RowTexts(None, (text.render(record),)) for record in records)
    if isinstance(task, SftTask):
        prompt, answer = Template.parse(task.prompt), Template.parse(task.answer)
        return (RowTexts(prompt.render(record), (answer.render(record),)) for record in records)
    return _choice_texts(records, task=task)


def _choice_texts(records: Iterable[Record], *, task: ChoiceTask) -> Iterator[RowTexts]:
    prompt = Template.parse(task.prompt)
    answers = tuple(task.answers.values())
    index_by_key = {key: index for index, key in enumerate(task.answers)}
    unknown: Counter[str] = Counter()
    first_unknown: Record | None = None
    count = 0
    for record in records:
        count += 1
        label = record.text(task.label)
        if label in index_by_key:
            yield RowTexts(prompt.render(record), answers, index_by_key[label])
        else:
            first_unknown = first_unknown or record
            unknown[label] += 1
    if first_unknown is not None:
        raise _unknown_labels(first_unknown, unknown, count=count, task=task)


def _unknown_labels(
    first: Record, unknown: Counter[str], *, count: int, task: ChoiceTask
) -> UnknownLabelsError:
    tally = ", ".join(f"{label!r} {times} times" for label, times in unknown.most_common(_MAX_LABELS_SHOWN))
    return UnknownLabelsError(
        f"{first.where}: label {first.text(task.label)!r} in column {task.label!r} is not among the "
        f"candidates {known_names(task.answers)}; {unknown.total()} of {count} rows have such a label "
        f"({tally}); add it to the answers or correct the data",
        column=task.label,
        num_unknown=unknown.total(),
        num_rows=count,
    )
