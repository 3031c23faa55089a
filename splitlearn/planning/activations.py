"""What a layer keeps of its forward for its backward, by family.

Counted, not guessed: the tensors that autograd keeps of one layer were counted for each family, in fp32 on
the processor with the library's default attention, and each count splits into whole multiples of the widths
below. A test counts them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitlearn.planning.folder import ModelFolder
from splitlearn.spec import FullAdapter, LoraAdapter

_INNER_KEYS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
_HEADS_KEYS = ("num_attention_heads", "n_head")
_INNER_PER_HIDDEN = 4  # where config.json does not say: GPT-2, BLOOM, Falcon


@dataclass(frozen=True, slots=True)
class Kept:
    """Numbers that a layer keeps per cell (row x padded position), as multiples of widths.

    Attributes:
        hidden: Of the hidden size.
        attention: Of heads x head size.
        inner: Of the feed-forward layer's inner size; with experts, of all that a token chooses.
        scores: Of heads x padded length, where attention weights are computed one by one.
    """

    hidden: float
    attention: float
    inner: float
    scores: float = 0


@dataclass(frozen=True, slots=True)
class Widths:
    """What the multiples are of."""

    hidden: int
    attention: int
    inner: int
    heads: int

    @classmethod
    def of(cls, folder: ModelFolder) -> "Widths":
        """Read a model's."""
        config, hidden = folder.config, folder.hidden_size
        heads = count_of(config, _HEADS_KEYS) or 1
        head_size = count_of(config, ("head_dim",)) or hidden // heads
        inner = count_of(config, _INNER_KEYS) or _INNER_PER_HIDDEN * hidden
        chosen = count_of(config, ("num_experts_per_tok",))
        if chosen:
            inner = chosen * (count_of(config, ("moe_intermediate_size",)) or inner)
        return cls(hidden, heads * head_size, inner, heads)


@dataclass(frozen=True, slots=True)
class _Family:
    full: Kept
    lora: Kept


_LLAMA = _Family(Kept(6, 4, 4), Kept(3, 4, 3))
_NORMED_HEADS_LORA = 5.6  # q and k are normed in fp32; of GQA's fewer keys a part
_FAMILIES: Mapping[str, _Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _Family(Kept(6, 7, 4), Kept(3, _NORMED_HEADS_LORA, 3)),
    "qwen3_moe": _Family(Kept(10, 7, 4), Kept(5, _NORMED_HEADS_LORA, 3)),
    "gemma2": _Family(Kept(10, 4, 4, scores=2), Kept(5, 3, 3, scores=2)),
    "gemma3_text": _Family(Kept(10, 7, 4), Kept(5, _NORMED_HEADS_LORA, 3)),
    "phi": _Family(Kept(3, 4, 5), Kept(2, 4, 5)),
    "phi3": _Family(Kept(6, 5, 4), Kept(3, 4, 3)),
    "glm": _Family(Kept(6, 5, 4), Kept(3, 4, 3)),
    "glm4": _Family(Kept(10, 5, 4), Kept(5, 4, 3)),
    "gpt2": _Family(Kept(4, 4, 5), Kept(3, 4, 4)),
    "opt": _Family(Kept(4, 4, 1), Kept(3, 4, 1)),
    "gpt_neox": _Family(Kept(6, 4, 2), Kept(4, 4, 1)),
    "bloom": _Family(Kept(8, 4, 1, scores=1), Kept(2, 4, 1, scores=1)),
    "falcon": _Family(Kept(2, 4, 2, scores=1), Kept(1, 4, 1, scores=1)),
}


def kept_by_layer(
    folder: ModelFolder, adapter: FullAdapter | LoraAdapter, *, cells: int, row_cells: int, element_bytes: int
) -> int:
    """Return the bytes that one layer keeps of a micro-batch until its backward.

    Args:
        folder: The model.
        adapter: What is trained. LoRA on other modules than the family's default ones is taken for training
            every weight, which keeps the inputs of all modules: an upper bound.
        cells: Rows x padded length of the micro-batch.
        row_cells: The padded length.
        element_bytes: Of an activation.
    """
    family, widths = _FAMILIES[folder.family.model_type], Widths.of(folder)
    is_default = isinstance(adapter, LoraAdapter) and set(adapter.targets) <= set(folder.family.lora_targets)
    kept = family.lora if is_default else family.full
    # Attention that is computed at once keeps a mask of its own, one by one it keeps scores.
    positions = kept.scores * widths.heads * row_cells if kept.scores else row_cells
    per_cell = (
        kept.hidden * widths.hidden
        + kept.attention * widths.attention
        + kept.inner * widths.inner
        + positions
    )
    return int(per_cell * cells) * element_bytes


def used_by_backward(folder: ModelFolder, *, cells: int, element_bytes: int) -> int:
    """Return the bytes that one layer's backward needs besides, for gradients on their way."""
    widths = Widths.of(folder)
    per_cell = 2 * widths.hidden + 3 * widths.inner  # of the gate, the up projection, and their product
    return per_cell * cells * element_bytes


def count_of(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Return the first of these that a model's configuration states as a positive number; else 0."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
