"""What a preset is made of."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from splitlearn.errors import SpecError
from splitlearn.records import Layout
from splitlearn.spec import CausalLmTask, ChoiceTask, TaskSpec
from splitlearn.task_spec import CANDIDATE
from splitlearn.template_syntax import columns_needed, parse_template


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One data set of a publisher.

    Attributes:
        name: What it is called in commands.
        summary: What it is, in a few words.
        task: The specification's task.
        metrics: Of what its publisher reports, what a job with this task measures besides the loss.
        layout: How rows lie in the file's objects.
        files: How its publisher gives it.
    """

    name: str
    summary: str
    task: TaskSpec
    metrics: tuple[str, ...]
    layout: Layout = Layout.ROWS
    files: str = "jsonl"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every row must have, after the layout and with the user's names."""
        return columns_of(self.task)

    def to_json(self) -> dict[str, Any]:
        """Return all parts; ``task`` is what a job's specification takes."""
        return {
            "name": self.name,
            "summary": self.summary,
            "files": self.files,
            "layout": self.layout.value,
            "columns": list(self.columns),
            "task": self.task.model_dump(mode="json"),
            "metrics": list(self.metrics),
        }


def columns_of(task: TaskSpec) -> tuple[str, ...]:
    """Return the columns that a row must have for a task."""
    if isinstance(task, CausalLmTask):
        return _needed(task.text)
    if isinstance(task, ChoiceTask):
        others = (task.label, *filter(None, (task.candidates, task.group)))
        candidate = [task.candidate] if task.candidates is not None else []
        needed = (*_needed(task.prompt, *task.answers.values(), *candidate), *others)
        return tuple(dict.fromkeys(name for name in needed if name != CANDIDATE))
    if task.chat is None:
        return _needed(task.prompt, task.answer)
    before = _needed(task.prompt) if task.chat.messages is None else (task.chat.messages,)
    return tuple(dict.fromkeys((*_needed(task.chat.system), *before, *_needed(task.answer))))


def overridden(task: TaskSpec, **changes: Any) -> TaskSpec:
    """Return a task with other parts; a part that is None stays.

    Raises:
        SpecError: The task has no such part, or it is wrong.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name in given:
        if name not in type(task).model_fields:
            parts = ", ".join(part for part in type(task).model_fields if part != "kind")
            raise SpecError(f"the task {task.kind} has no {name}; it has {parts}")
    try:
        return type(task).model_validate({**task.model_dump(), **given})
    except ValidationError as error:
        details = error.errors(include_url=False)
        sentences = (str(detail["msg"]).removeprefix("Value error, ") for detail in details)
        raise SpecError("; ".join(dict.fromkeys(sentences))) from error


def _needed(*templates: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for text in templates for name in columns_needed(parse_template(text))))
