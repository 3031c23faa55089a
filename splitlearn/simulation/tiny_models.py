"""Small models for the demo and for tests, built from a config, with a tokenizer trained on the spot.

A model folder is named after everything that it was made from, so that it is made once and then reused.
"""

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from splitlearn.errors import DataError, ModelError, StorageError

TinyModelName = Literal["tiny-llama", "tiny-glm"]
TINY_MODELS: tuple[TinyModelName, ...] = get_args(TinyModelName)

_BEGIN, _END, _PAD = "<s>", "</s>", "<pad>"
_SPECIAL_TOKENS = (_BEGIN, _END, _PAD)  # ids 0, 1, 2
_BYTES = 256
_MAX_TEXTS = 20_000  # merges of so small a vocabulary settle long before
_RECIPE = 1  # raise when the same arguments shall give another model


@dataclass(frozen=True)
class TinySize:
    """Sizes of a tiny model.

    The default takes about 0.1 s per training step of 8 x 64 tokens on one core.

    Attributes:
        dim: Hidden size.
        mlp_dim: Inner size of the feed-forward layers.
        num_layers: Decoder layers.
        num_heads: Query heads; each key-value head serves two.
        vocab_size: Tokens, with 256 bytes and three special ones.
        max_positions: Longest sequence.
    """

    dim: int = 128
    mlp_dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    vocab_size: int = 768
    max_positions: int = 512


DEFAULT_SIZE = TinySize()


def build_tiny_model(
    name: TinyModelName,
    *,
    texts: Iterable[str],
    cache: Path,
    seed: int = 0,
    size: TinySize = DEFAULT_SIZE,
) -> Path:
    """Return a Hugging Face folder of a small random model, made now or found from before.

    The folder holds ``config.json``, ``generation_config.json``, ``model.safetensors`` (fp32),
    ``tokenizer.json`` and ``tokenizer_config.json``; the tokenizer is a byte-level BPE with begin, end and
    pad token. The same arguments give the same bytes. It appears whole or not at all.

    Args:
        name: ``tiny-llama`` or ``tiny-glm``.
        texts: What the tokenizer learns its merges from; at most the first 20,000 are used.
        cache: Folder that the model's folder is placed in.
        seed: Of the random weights.
        size: Sizes of the model.

    Raises:
        ModelError: The name is not known or the vocabulary too small.
        DataError: There is no text.
        StorageError: The folder cannot be written.
    """
    if name not in TINY_MODELS:
        raise ModelError(f"no tiny model {name!r}; choose one of {', '.join(TINY_MODELS)}")
    if size.vocab_size < _BYTES + len(_SPECIAL_TOKENS):
        raise ModelError(
            f"vocab_size: {size.vocab_size} is too small for 256 bytes and {len(_SPECIAL_TOKENS)} special "
            f"tokens; give at least {_BYTES + len(_SPECIAL_TOKENS)}"
        )
    sample = list(islice(texts, _MAX_TEXTS))
    if not any(sample):
        raise DataError("there is no text to train the tokenizer on; give at least one row")
    folder = cache / f"{name}-{_content_key(name, sample, seed=seed, size=size)}"
    if not folder.is_dir():
        _make(folder, name, sample, seed=seed, size=size)
    return folder


def _content_key(name: str, sample: list[str], *, seed: int, size: TinySize) -> str:
    digest = hashlib.sha256()
    versions = [importlib.metadata.version(library) for library in ("torch", "transformers", "tokenizers")]
    digest.update(json.dumps([_RECIPE, name, seed, asdict(size), versions]).encode())
    for text in sample:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]


def _make(folder: Path, name: TinyModelName, sample: list[str], *, seed: int, size: TinySize) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _save_tokenizer(_tokenizer(sample, size=size), temporary)
        _save(_model(name, seed=seed, size=size), temporary)
        temporary.chmod(0o755)
        _place(temporary, folder)
    except (OSError, SafetensorError) as error:  # a full disk is either, as the file's writer has it
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process made the same folder meanwhile; its content is equal.
        if not folder.is_dir():
            raise


def _unwritable(folder: Path, error: Exception) -> StorageError:
    return StorageError(f"{folder}: cannot write the model ({error}); free space or choose another folder")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is Exception:  # how the library says that a file cannot be written
            raise OSError(str(error)) from error
        raise


def _tokenizer(sample: list[str], *, size: TinySize) -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in _SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_BEGIN,
        eos_token=_END,
        pad_token=_PAD,
        model_max_length=size.max_positions,
        clean_up_tokenization_spaces=False,
    )


def _model(name: TinyModelName, *, seed: int, size: TinySize) -> Any:
    config_class, model_class = {
        "tiny-llama": (LlamaConfig, LlamaForCausalLM),
        "tiny-glm": (GlmConfig, GlmForCausalLM),
    }[name]
    config = config_class(
        hidden_size=size.dim,
        intermediate_size=size.mlp_dim,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=max(size.num_heads // 2, 1),
        head_dim=size.dim // size.num_heads,
        vocab_size=size.vocab_size,
        max_position_embeddings=size.max_positions,
        tie_word_embeddings=False,
        bos_token_id=_SPECIAL_TOKENS.index(_BEGIN),
        eos_token_id=_SPECIAL_TOKENS.index(_END),
        pad_token_id=_SPECIAL_TOKENS.index(_PAD),
        architectures=[model_class.__name__],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        # A head that stays frozen must be able to tell tokens apart: with the usual 0.02 its logits are
        # so close together that no trunk before it could bring the loss under 4.
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            torch.nn.init.normal_(weight, std=size.dim**-0.5)
    return model


def _save(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    GenerationConfig.from_model_config(model.config).save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
