"""The task of a job: what is made of a row, what is learned of it, and how answers are scored. Torch-free.

What a field means is told at length in docs/tasks.md. A field that is as it is without being said is not
written out: a document that says nothing of it keeps its digest.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from splitlearn.errors import DataError
from splitlearn.frozen import Frozen
from splitlearn.template_syntax import MAX_TEMPLATE_CHARACTERS, columns_read, parse_template

CANDIDATE = "candidate"
"""The column that stands for one of a row's own candidates, in the template that writes it."""

MAX_CANDIDATES = 256
_MIN_CANDIDATES = 2


def _well_formed(template: str) -> str:
    try:
        parse_template(template)
    except DataError as error:
        # Its sentence goes out as it is, with no "Value error" before it, and no brace of it as a field.
        raise PydanticCustomError("malformed_template", "{sentence}", {"sentence": error.message}) from error
    return template


def _with_a_column(template: str) -> str:
    if not columns_read(parse_template(template)):
        raise PydanticCustomError(
            "template_without_column",
            "the template names no column, so every row would have the same text; "
            "write a column in braces, such as {text}",
        )
    return template


AnyTemplate = Annotated[
    str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARACTERS), AfterValidator(_well_formed)
]
"""Text over a row's columns; it may name none."""

Template = Annotated[AnyTemplate, AfterValidator(_with_a_column)]
"""Text of a row over its columns, ``{column}``; it names at least one."""

_Candidate = Annotated[str, Field(max_length=MAX_TEMPLATE_CHARACTERS), AfterValidator(_well_formed)]
ColumnName = Annotated[str, Field(min_length=1, max_length=256)]

SummaryMetric = Literal["rouge-1", "rouge-2", "rouge-l", "bleu-4"]


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return value in (None, "", (), {})


class CausalLmTask(Frozen):
    """Next-token prediction on every token of a text."""

    kind: Literal["causal-lm"] = "causal-lm"
    text: Template = "{text}"


class ChatSpec(Frozen):
    """The row as a conversation, written out by the chat template of the model's tokenizer.

    Attributes:
        system: Template of a system message before all others; empty for none.
        messages: Column with the messages before the answer, ``[{"role": ..., "content": ...}]``. None: there
            is one, of the user, with the task's prompt as its text.
    """

    system: str = Field(default="", max_length=MAX_TEMPLATE_CHARACTERS, exclude_if=_is_empty)
    messages: ColumnName | None = Field(default=None, exclude_if=_is_none)

    _system_is_a_template = field_validator("system")(_well_formed)


class AnswerTask(Frozen):
    """What ``sft`` and ``summarise`` share: a prompt that is read, an answer that is learned.

    Attributes:
        prompt: Template over the row's columns, ``{column}``; what the model reads. It may name none.
        answer: Template over the row's columns; what it learns to write, followed by the end token.
        chat: Write both by the tokenizer's chat template; None: as they stand.
    """

    prompt: AnyTemplate = "{prompt}"
    answer: Template = "{answer}"
    chat: ChatSpec | None = Field(default=None, exclude_if=_is_none)


class SftTask(AnswerTask):
    """Supervised fine-tuning: the loss is taken on the answer only."""

    kind: Literal["sft"] = "sft"


class SummariseTask(AnswerTask):
    """Summaries: learned as ``sft`` learns its answers.

    Attributes:
        metrics: Scores of summaries that are generated for the held-out rows at every evaluation.
    """

    kind: Literal["summarise"] = "summarise"
    prompt: AnyTemplate = "{document}\nSummary:"
    answer: Template = " {summary}"
    metrics: tuple[SummaryMetric, ...] = Field(default=(), exclude_if=_is_empty)


class ChoiceTask(Frozen):
    """Classification by scoring: the candidate answer with the highest log-likelihood wins.

    Attributes:
        prompt: Template over the row's columns.
        label: Name of the column that holds the right answer's key; with ``candidates``, the right text, or
            a list of texts that are right.
        answers: Template of each candidate by key as found in the label column: {"0": "bad", "1": "good"}.
        candidates: In place of ``answers``, the column with a row's own candidates, a list of texts.
        candidate: With ``candidates``, the template of one, over the row's columns and ``candidate``.
        positive: The key of ``answers`` that F1 of two classes counts; None for none.
        group: Column of what several rows are about, such as one question of several answers: they are held
            out together, and ``exact_match`` counts those of which every row is answered rightly.
    """

    kind: Literal["choice"] = "choice"
    prompt: Template = "{text}"
    label: ColumnName = "label"
    answers: dict[str, _Candidate] = Field(default={}, max_length=MAX_CANDIDATES, exclude_if=_is_empty)
    candidates: ColumnName | None = Field(default=None, exclude_if=_is_none)
    candidate: Template = Field(default="{candidate}", exclude_if=lambda value: value == "{candidate}")
    positive: str | None = Field(default=None, exclude_if=_is_none)
    group: ColumnName | None = Field(default=None, exclude_if=_is_none)

    @field_validator("answers", mode="before")
    @classmethod
    def _are_several(cls, answers: Any) -> Any:
        if isinstance(answers, Mapping) and len(answers) < _MIN_CANDIDATES:
            raise PydanticKnownError(
                "too_short",
                {"field_type": "Dictionary", "min_length": _MIN_CANDIDATES, "actual_length": len(answers)},
            )
        return answers

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if bool(self.answers) is (self.candidates is not None):
            what = "both answers and candidates" if self.answers else "neither answers nor candidates"
            raise ValueError(
                f"{what}; give the candidate answers by label (answers), or the column with each row's "
                "own (candidates)"
            )
        if self.positive is not None and self.positive not in self.answers:
            raise ValueError(
                f"positive: {self.positive!r} is no key of the answers; give one of "
                f"{', '.join(map(repr, self.answers)) or 'those that answers has'}, or leave it out"
            )
        if self.candidates is not None and CANDIDATE not in columns_read(parse_template(self.candidate)):
            raise ValueError(
                f"candidate: {self.candidate!r} does not name {{{CANDIDATE}}}, so all would be the same text"
            )
        return self


TaskSpec = CausalLmTask | SftTask | SummariseTask | ChoiceTask
