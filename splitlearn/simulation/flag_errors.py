"""A refused specification in the words of the flags it was made from. Torch-free."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from splitlearn.errors import SpecError

_FLAGS = {
    "name": "--name",
    "model": "--model",
    "bottom_layers": "--bottom-layers",
    "top_layers": "--top-layers",
    "turn_steps": "--turn-steps",
    "replicas": "--replicas",
    "replica_schedule": "--replica-schedule",
    "peak": "--learning-rate",
    "max_grad_norm": "--max-grad-norm",
    "every_steps": "--average-every",
    "batch_size": "--batch-size",
    "accumulation_steps": "--accumulation-steps",
    "max_tokens": "--max-tokens",
    "rounds": "--rounds",
    "steps_per_round": "--steps-per-round",
    "seed": "--seed",
    "max_rows": "--eval-rows",
    "every_rounds": "--eval-every",
    "keep_best": "--keep-best",
    "patience_evaluations": "--patience",
    "text": "--prompt",
    "prompt": "--prompt",
    "answer": "--answers",
    "answers": "--answers",
}
_SENTENCES = {
    "less_than_equal": "{value} is above the limit; give {le} or less",
    "less_than": "{value} is above the limit; give less than {lt}",
    "greater_than_equal": "{value} is below the limit; give {ge} or more",
    "greater_than": "{value} is below the limit; give more than {gt}",
    "finite_number": "{value} is not finite; give a number that is",
    "string_pattern_mismatch": "{value} is no name: 1 to 64 lower-case letters, digits, dots, underscores "
    "and hyphens, a letter or digit first and last; correct it",
    "string_too_short": "is empty; give a text, or leave it out",
    "string_too_long": "has {size} characters, the limit is {max_length}; shorten it",
    "too_short": "lists too few candidates ({size}), a choice has at least {min_length}; add one",
    "too_long": "lists {size} candidates, the limit is {max_length}; leave some out",
}
_MAX_SHOWN = 80
_Detail = Mapping[str, Any]


def in_flags(error: SpecError) -> SpecError:
    """Return the error with flags in place of the specification's fields, which no user has typed."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return error
    details = cause.errors(include_url=False)
    # One wrong flag is wrong at every silo, and makes the roster wrong too.
    named = [detail for detail in details if _flag(detail)] or details
    return SpecError("\n".join(dict.fromkeys(_sentence(detail) for detail in named)))


def _flag(detail: _Detail) -> str | None:
    names = [part for part in detail["loc"] if isinstance(part, str)]
    return _FLAGS.get(names[-1]) if names else None


def _sentence(detail: _Detail) -> str:
    flag = _flag(detail)
    if flag is None:
        place = ".".join(map(str, detail["loc"]))
        return f"{place}: {detail['msg']}" if place else _renamed(detail["msg"])
    value = detail["input"]
    template = _SENTENCES.get(detail["type"])
    if template is None:
        return f"{flag}: {detail['msg']}; got {_shown(value)}"
    size = len(value) if isinstance(value, str | dict) else 0
    return f"{flag} {template.format(value=_shown(value), size=size, **detail.get('ctx', {}))}"


def _renamed(message: str) -> str:
    """Put flags into a sentence about fields that contradict each other."""
    plain = message.removeprefix("Value error, ")
    plain = re.sub(r"^replicas(?=:)", _FLAGS["replicas"], plain)
    flagged = re.sub(r"\b\w+_\w+\b", lambda found: _FLAGS.get(found[0], found[0]), plain)
    return re.sub(r"^(--[a-z-]+):", r"\1", flagged).replace("with schedule", "with --schedule")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
