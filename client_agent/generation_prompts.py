"""What a person asks for: prompts of flags, a file or standard input, and options. Torch-free."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitlearn.errors import DataError, SpecError

MAX_PROMPTS = 100_000
MAX_FILE_BYTES = 256 << 20


class WantedError(SpecError):
    """Options of ``generate`` contradict each other."""

    code = "setting"


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """One prompt: a text, or a conversation for the model's chat template. Its content is shown nowhere.

    Attributes:
        text: What stands before the answer.
        messages: In the conversation's order, each with ``role`` and ``content``; in place of a text.
    """

    text: str = ""
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """What is generated, and how.

    Attributes:
        prompts: At least one.
        max_new_tokens: Longest answer.
        temperature, top_k, top_p: How tokens are drawn; None for all of them takes the likeliest each time.
        seed: Of the draws.
        is_chat: Prompts are written by the model's chat template.
        batch_size: Prompts answered at once.
        wait_seconds: For a worker.
    """

    prompts: Sequence[Prompt]
    max_new_tokens: int = 128
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    is_chat: bool = False
    batch_size: int = 8
    wait_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.prompts) <= MAX_PROMPTS:
            raise WantedError(f"{len(self.prompts)} prompts were given; give 1 to {MAX_PROMPTS}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise WantedError("--temperature 0 takes the likeliest token: leave out --top-k and --top-p")
        if not self.is_chat and any(prompt.messages for prompt in self.prompts):
            raise WantedError("a prompt is a conversation (messages): add --chat")

    @property
    def is_sampled(self) -> bool:
        """Whether tokens are drawn at random."""
        if self.temperature == 0:
            return False
        return any(value is not None for value in (self.temperature, self.top_k, self.top_p))


def read_prompts(lines: Iterable[str], *, source: str) -> list[Prompt]:
    """Read prompts of JSON lines: each a string, or an object with ``prompt`` or ``messages``.

    Args:
        lines: The lines; empty ones are left out.
        source: Where they come from, for messages.

    Raises:
        DataError: A line is none of these; it is named by its number, never quoted.
    """
    found: list[Prompt] = []
    num_bytes = 0
    for number, line in enumerate(lines, start=1):
        num_bytes += len(line)
        if num_bytes > MAX_FILE_BYTES or len(found) >= MAX_PROMPTS:
            raise DataError(
                f"{source}: more than {MAX_PROMPTS} prompts or {MAX_FILE_BYTES} characters; split the file"
            )
        if line.strip():
            found.append(_prompt(line, where=f"{source}, line {number}"))
    if not found:
        raise DataError(f"{source}: holds no prompt; write one JSON value per line")
    return found


def read_prompt_file(path: Path) -> list[Prompt]:
    """Read a file of JSON lines; see :func:`read_prompts`.

    Raises:
        DataError: It cannot be read, or a line is wrong.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return read_prompts(file, source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"cannot read {path}: {reason}; give a file of JSON lines") from error


def _prompt(line: str, *, where: str) -> Prompt:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{where}: is no JSON; write a string, or an object with prompt or messages"
        ) from error
    if isinstance(value, dict) and value.keys() <= {"prompt", "messages"} and len(value) == 1:
        return _of_object(value, where=where)
    if isinstance(value, str):
        return Prompt(value)
    raise DataError(f"{where}: is neither a string nor an object with prompt or messages alone; correct it")


def _of_object(value: dict[str, Any], *, where: str) -> Prompt:
    text, messages = value.get("prompt"), value.get("messages")
    if isinstance(text, str):
        return Prompt(text)
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        return Prompt(messages=tuple(messages))
    raise DataError(
        f"{where}: prompt is no string, or messages no list of objects with role and content; correct it"
    )


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and all(isinstance(part, str) for part in value.values())
    )
