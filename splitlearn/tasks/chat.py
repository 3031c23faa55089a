"""Conversations as the model's own chat template writes them."""

from collections.abc import Sequence

from jinja2 import TemplateError

from splitlearn.errors import ModelError
from splitlearn.tasks.texts import Message
from splitlearn.tasks.tokenizing import TextTokenizer

MAX_CHAT_TEMPLATE_CHARACTERS = 64 << 10
MAX_CHAT_CHARACTERS = 16 << 20
_REMEDY = "leave out the task's chat, so that its prompt and answer stand as they are, or take another model"

_OF_A_TEMPLATE = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template may end with; it is the model's publisher's, not ours."""


def refuse_without_chat(tokenizer: TextTokenizer, *, remedy: str = _REMEDY) -> None:
    """Refuse a tokenizer that cannot write a conversation.

    Args:
        tokenizer: The model's.
        remedy: What to do then, where it is not a job's task that asks for it.

    Raises:
        ModelError: It has no chat template, or one that is too long.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise ModelError(f"the model's tokenizer has no chat template; {remedy}")
    if len(template) > MAX_CHAT_TEMPLATE_CHARACTERS:
        raise ModelError(
            f"the tokenizer's chat template has {len(template)} characters, the limit is "
            f"{MAX_CHAT_TEMPLATE_CHARACTERS}; {remedy}"
        )


def chat_texts(messages: Sequence[Message], answer: str, *, tokenizer: TextTokenizer) -> tuple[str, str]:
    """Return what the model reads, and what it is to write after it.

    The template comes with the model, and transformers renders it in Jinja's immutable sandbox: it reaches
    neither objects nor files. Begin and end of the text are its own business.

    Args:
        messages: The conversation before the answer.
        answer: What the assistant says then.
        tokenizer: The model's, which :func:`refuse_without_chat` has passed.

    Raises:
        ModelError: The template fails, or writes the conversation otherwise where an answer follows.
    """
    prompt = _rendered(messages, tokenizer, asks=True)
    whole = _rendered([*messages, {"role": "assistant", "content": answer}], tokenizer, asks=False)
    if not whole.startswith(prompt) or len(whole) == len(prompt):
        raise ModelError(
            "the tokenizer's chat template writes the conversation otherwise where an answer follows it, so "
            f"the answer cannot be told apart; {_REMEDY}"
        )
    return prompt, whole[len(prompt) :]


def chat_prompt(messages: Sequence[Message], *, tokenizer: TextTokenizer, remedy: str = _REMEDY) -> str:
    """Return what the model reads before it answers a conversation; see :func:`chat_texts`.

    Args:
        messages: The conversation.
        tokenizer: The model's.
        remedy: What to do where it cannot be written.

    Raises:
        ModelError: There is no template, or it fails.
    """
    refuse_without_chat(tokenizer, remedy=remedy)
    return _rendered(messages, tokenizer, asks=True, remedy=remedy)


def _rendered(
    messages: Sequence[Message], tokenizer: TextTokenizer, *, asks: bool, remedy: str = _REMEDY
) -> str:
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks)
    except _OF_A_TEMPLATE as error:
        raise ModelError(
            f"the tokenizer's chat template cannot write a conversation of {len(messages)} messages "
            f"({error}); {remedy}"
        ) from error
    if not isinstance(text, str) or len(text) > MAX_CHAT_CHARACTERS:
        raise ModelError(
            f"the tokenizer's chat template wrote more than {MAX_CHAT_CHARACTERS} characters of one "
            f"conversation; {remedy}"
        )
    return text
