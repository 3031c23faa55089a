"""Tokenizers of model folders, and texts to token ids."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast

from splitlearn.errors import ModelError


class TextTokenizer(Protocol):
    """The part of ``PreTrainedTokenizerFast`` that is used here."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    chat_template: Any

    def __call__(self, text: list[str], **options: Any) -> Any:
        """Tokenise texts; the result's ``input_ids`` hold one list of ids per text."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """Return the text of some tokens."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Write a conversation as the model knows it."""


def load_tokenizer(folder: Path) -> TextTokenizer:
    """Load the fast tokenizer of a model folder: ``tokenizer.json``, never code, never the network.

    Raises:
        ModelError: The folder has no ``tokenizer.json``, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder}: no tokenizer.json; save the model's fast tokenizer there "
            "(tokenizer.save_pretrained of transformers)"
        )
    try:
        with path.open("rb") as file:
            json.load(file)
        tokenizer: TextTokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception for a malformed file
        raise ModelError(f"{path}: not a tokenizer ({error}); save the tokenizer again") from error
    return tokenizer


def padding_id(tokenizer: TextTokenizer) -> int:
    """Return the id that fills padded places: the tokenizer's own, else its end token, else 0.

    What it is does not matter to any result: padded places are masked and carry no label.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    return 0


def encode_texts(
    texts: Sequence[str], *, tokenizer: TextTokenizer, vocab_size: int | None = None
) -> list[list[int]]:
    """Return the token ids of each text, without any special token added.

    Each text is tokenised for itself: a prompt and its answer never merge at their boundary, and their
    ids do not depend on what follows.

    Args:
        texts: Any number of texts.
        tokenizer: The model's tokenizer.
        vocab_size: Rows of the model's embedding, where known.

    Raises:
        ModelError: The tokenizer made an id that the model's embedding lacks.
    """
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    highest = max((max(row) for row in ids if row), default=0)
    if vocab_size is not None and highest >= vocab_size:
        raise ModelError(
            f"the tokenizer made token {highest}, but the model's vocabulary ends at {vocab_size - 1}; "
            "tokenizer and model do not belong together: take both from one folder"
        )
    return ids
