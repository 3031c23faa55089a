"""Tokens to text while they come, and where a model's answers end. Stays at the silo."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from splitlearn.errors import ModelError

_CUT = "�"


class Decoder(Protocol):
    """The part of a tokenizer that turns tokens into text."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """Return the text of some tokens."""


class TextStream:
    """The text of one answer, given out as soon as it is sure.

    A token may end inside a character: such a piece waits for the next one. The pieces, put together, are
    the text of all tokens, as long as the tokenizer writes what came before alike whatever follows.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._told = ""

    @property
    def text(self) -> str:
        """The text so far, as of all tokens at once."""
        return self._tokenizer.decode(self._tokens, skip_special_tokens=True)

    def add(self, token: int) -> str:
        """Take the next token; returns what is new and sure, possibly nothing."""
        self._tokens.append(token)
        text = self.text
        # Given out only if what was given out stays true, and no character is cut.
        if text.endswith(_CUT) or not text.startswith(self._told):
            return ""
        new, self._told = text[len(self._told) :], text
        return new

    def rest(self) -> str:
        """Return what is left when no token follows."""
        text = self.text
        return text[len(self._told) :] if text.startswith(self._told) else ""


def end_tokens(folder: Path) -> frozenset[int]:
    """Return the tokens after which a model's answers end, as its folder says.

    ``generation_config.json`` counts before ``config.json``, as in the library.

    Raises:
        ModelError: A file is not JSON, or names what is no token.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            found = _eos(path)
            if found:
                return found
    return frozenset()


def _eos(path: Path) -> frozenset[int]:
    try:
        told = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); download the model again") from error
    tokens = [] if told is None else told if isinstance(told, list) else [told]
    if not all(type(token) is int and token >= 0 for token in tokens):
        raise ModelError(f"{path}: eos_token_id is {told!r}, no token or list of tokens; correct it")
    return frozenset(tokens)
