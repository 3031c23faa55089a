"""A small tokenizer of our own, and the public one where it is present."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from splitlearn.tasks import Record, TextTokenizer, load_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bytes_backend() -> Tokenizer:
    """One token per byte, in the order of the byte-level alphabet; then <s>, </s>, <pad>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", "<pad>"])
    return backend


@pytest.fixture(scope="session")
def tokenizer(bytes_backend: Tokenizer) -> TextTokenizer:
    """With begin (256), end (257) and pad (258) token; every other byte is one token."""
    made: TextTokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return made


@pytest.fixture(scope="session")
def bare_tokenizer(bytes_backend: Tokenizer) -> TextTokenizer:
    """The same without any special token."""
    made: TextTokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_backend)
    return made


@pytest.fixture(scope="session")
def stories_tokenizer(test_data: Path) -> TextTokenizer:
    return load_tokenizer(test_data / "models" / "stories260K")


@pytest.fixture
def ids(tokenizer: TextTokenizer) -> Callable[[str], list[int]]:
    """Token ids of a text, by its bytes."""

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer([text], add_special_tokens=False)["input_ids"][0]
        return found

    return encode


@pytest.fixture
def rows_of() -> Callable[..., list[Record]]:
    """Records with the given columns, on lines 1, 2, ..."""

    def make(*rows: dict[str, object]) -> list[Record]:
        return [Record(columns, "made.jsonl", number) for number, columns in enumerate(rows, 1)]

    return make
