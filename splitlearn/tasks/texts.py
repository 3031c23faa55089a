"""From a record to the texts that a task makes of it. Torch-free."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from splitlearn.errors import DataError
from splitlearn.records import Record, known_names, plain_text
from splitlearn.spec import CausalLmTask, ChatSpec, ChoiceTask, SftTask, SummariseTask, TaskSpec
from splitlearn.task_spec import CANDIDATE, MAX_CANDIDATES
from splitlearn.tasks.chance import keyed_digest
from splitlearn.tasks.template import Template
from splitlearn.tasks.text_scores import exact_match, token_f1

Task = TaskSpec
Message = Mapping[str, str]
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
        messages: The conversation before the answer, where a chat template writes both; ``prompt`` is then
            what they say, one after the other.
        group: What rows share that are about the same; empty for a row by itself.
        exact: Of a row with candidates of its own: which of them are as good as the right one.
        token_f1: Of such a row: how many words each shares with the right one.
    """

    prompt: str | None
    answers: tuple[str, ...]
    right: int = 0
    messages: tuple[Message, ...] = ()
    group: str = ""
    exact: tuple[bool, ...] = ()
    token_f1: tuple[float, ...] = ()

    @property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that equal texts share."""
        return keyed_digest("row", self.prompt or "", self.answers[self.right])[:16]

    @property
    def group_digest(self) -> bytes:
        """Sixteen bytes that the rows of a group share; none for a row by itself."""
        return keyed_digest("group", self.group)[:16] if self.group else b""

    def __repr__(self) -> str:
        """Say counts and no text: rows are private."""
        return f"RowTexts({len(self.answers)} answers)"


def row_texts(records: Iterable[Record], *, task: Task) -> Iterator[RowTexts]:
    """Yield the texts of every row.

    Raises:
        DataError: A template is malformed or names a column that a row lacks.
        UnknownLabelsError: After the last row: some labels are not among the candidates.
    """
    if isinstance(task, ChoiceTask):
        return _choice_texts(records, task=task)
    return map(_maker(task), records)


def refuse_unfit_row(record: Record, *, task: Task) -> None:
    """Look at one row before all are tokenised; its label is not looked at.

    Raises:
        DataError: A template is malformed, or names a column that the row lacks.
    """
    if isinstance(task, ChoiceTask):
        _Choices(task).texts(record)
    else:
        _maker(task)(record)


def are_fixed(task: Task) -> bool:
    """Return whether every row of a choice has the same candidates, told apart by their keys."""
    return isinstance(task, ChoiceTask) and not any(
        Template.parse(answer).columns for answer in task.answers.values()
    )


def _maker(task: CausalLmTask | SftTask | SummariseTask) -> Callable[[Record], RowTexts]:
    if isinstance(task, CausalLmTask):
        text = Template.parse(task.text)
        return lambda record: RowTexts(None, (text.render(record),))
    prompt, answer = Template.parse(task.prompt), Template.parse(task.answer)
    if task.chat is not None:
        return _chat_maker(task.chat, prompt, answer)
    return lambda record: RowTexts(prompt.render(record), (answer.render(record),))


def _chat_maker(chat: ChatSpec, prompt: Template, answer: Template) -> Callable[[Record], RowTexts]:
    system = Template.parse(chat.system)

    def made(record: Record) -> RowTexts:
        before: list[Message] = []
        if told := system.render(record):
            before.append({"role": "system", "content": told})
        if chat.messages is None:
            before.append({"role": "user", "content": prompt.render(record)})
        else:
            before += _messages(record, chat.messages)
        said = "\n".join(message["content"] for message in before)
        group = record.columns.get("group") if chat.messages is not None else None
        return RowTexts(said, (answer.render(record),), messages=tuple(before), group=plain_text(group) or "")

    return made


def _messages(record: Record, column: str) -> list[Message]:
    value = record.columns.get(column)
    if column not in record.columns:
        record.text(column)  # refuses it, and says which there are
    if not isinstance(value, list) or not all(map(_is_message, value)):
        raise DataError(
            f"{record.where}: column {column!r} is no list of messages, each with the texts role and "
            "content; add the file with the layout messages (docs/tasks.md)"
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


class _Choices:
    """Makes the texts of a choice's rows."""

    def __init__(self, task: ChoiceTask) -> None:
        self._task = task
        self._prompt = Template.parse(task.prompt)
        self._answers = [Template.parse(answer) for answer in task.answers.values()]
        self._index_by_key = {key: index for index, key in enumerate(task.answers)}
        self._candidate = Template.parse(task.candidate)

    def texts(self, record: Record) -> RowTexts | None:
        """Return a row's texts; None where its label is not among the candidates."""
        group = record.text(self._task.group) if self._task.group is not None else ""
        prompt = self._prompt.render(record)
        if self._task.candidates is not None:
            return self._own(record, prompt, group, self._task.candidates)
        answers = tuple(answer.render(record) for answer in self._answers)
        right = self._index_by_key.get(record.text(self._task.label))
        return None if right is None else RowTexts(prompt, answers, right, group=group)

    def _own(self, record: Record, prompt: str, group: str, column: str) -> RowTexts | None:
        candidates = _texts_in(record, column)
        golds = _texts_in(record, self._task.label)
        right = next((index for index, text in enumerate(candidates) if text in golds), None)
        if right is None:
            return None
        answers = (
            self._candidate.render(Record({**record.columns, CANDIDATE: text}, record.source, record.line))
            for text in candidates
        )
        return RowTexts(
            prompt,
            tuple(answers),
            right,
            group=group,
            exact=tuple(any(exact_match(text, gold) for gold in golds) for text in candidates),
            token_f1=tuple(max(token_f1(text, gold) for gold in golds) for text in candidates),
        )


def _texts_in(record: Record, column: str) -> list[str]:
    """Return a column's texts, each once."""
    value = record.columns.get(column)
    listed = value if isinstance(value, list) else [record.text(column)]
    texts = [text for text in map(plain_text, listed) if text is not None]
    if not texts or len(texts) < len(listed):
        raise DataError(
            f"{record.where}: column {column!r} holds a list that is empty or holds more than texts; "
            "expected a list of at least one text"
        )
    if len(texts) > MAX_CANDIDATES:
        raise DataError(
            f"{record.where}: column {column!r} lists {len(texts)} texts, the limit is {MAX_CANDIDATES}; "
            "leave some out"
        )
    return list(dict.fromkeys(texts))


def _choice_texts(records: Iterable[Record], *, task: ChoiceTask) -> Iterator[RowTexts]:
    choices = _Choices(task)
    unknown: Counter[str] = Counter()
    first_unknown: Record | None = None
    count = 0
    for record in records:
        count += 1
        texts = choices.texts(record)
        if texts is not None:
            yield texts
        else:
            first_unknown = first_unknown or record
            unknown[_label(record, task)] += 1
    if first_unknown is not None:
        raise _unknown_labels(first_unknown, unknown, count=count, task=task)


def _label(record: Record, task: ChoiceTask) -> str:
    return ", ".join(_texts_in(record, task.label))


def _unknown_labels(
    first: Record, unknown: Counter[str], *, count: int, task: ChoiceTask
) -> UnknownLabelsError:
    tally = ", ".join(f"{label!r} {times} times" for label, times in unknown.most_common(_MAX_LABELS_SHOWN))
    candidates = known_names(task.answers) if task.answers else f"in column {task.candidates!r}"
    return UnknownLabelsError(
        f"{first.where}: label {_label(first, task)!r} in column {task.label!r} is not among the "
        f"candidates {candidates}; {unknown.total()} of {count} rows have such a label "
        f"({tally}); add it to the answers or correct the data",
        column=task.label,
        num_unknown=unknown.total(),
        num_rows=count,
    )
