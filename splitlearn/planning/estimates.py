"""Estimates before a job: bytes on the wire per token, and memory per segment."""

from dataclasses import dataclass
from typing import Literal

from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.sizes import lora_parameters, segment_sizes
from splitlearn.spec import AdamWSpec, FullAdapter, LoraAdapter, SGDSpec

CodecName = Literal["fp32", "bf16", "fp16", "int8"]
_ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_INT8_SCALE_BYTES = 1  # one power-of-two scale per token
_ACTIVATION_BYTES_PER_HIDDEN = 34  # Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1, at 2 bytes each
_ACTIVATION_ELEMENT_BYTES = 2
_FLOAT32_BYTES = 4


def wire_bytes_per_token(hidden_size: int, codec: CodecName, *, bottom_trains: bool) -> int:
    """Return the tensor bytes that cross the cut, both directions together, per valid token and step.

    Activations, hidden states and the gradient of the hidden states always cross; the gradient of the
    activations only where the bottom trains. Envelopes and headers come on top: under 1 % of a batch.

    Args:
        hidden_size: D of the model.
        codec: How tensors are encoded.
        bottom_trains: Whether the silo's bottom is trained.
    """
    scale = _INT8_SCALE_BYTES if codec == "int8" else 0
    crossings = 4 if bottom_trains else 3
    return crossings * (hidden_size * _ELEMENT_BYTES[codec] + scale)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one segment needs while it trains.

    Attributes:
        weights: Parameters, with the adapter's.
        gradients: Of what is trained.
        optimizer: Its state.
        activations: Kept for the backward pass: an estimate (Korthikanti et al. 2022, section 4.1, without
            attention scores), meant to tell what fits from what does not.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    folder: ModelFolder,
    cut: Cut,
    role: Role,
    *,
    adapter: FullAdapter | LoraAdapter,
    optimizer: AdamWSpec | SGDSpec,
    batch_tokens: int,
    trains: bool = True,
    element_bytes: int = _FLOAT32_BYTES,
) -> Memory:
    """Estimate what a segment needs.

    Args:
        folder: The model.
        cut: Where it is cut.
        role: Which segment.
        adapter: What is trained.
        optimizer: Whose state is kept, in float32.
        batch_tokens: Cells (rows x padded length) of all micro-batches in flight at once.
        trains: Whether this segment trains at all (a silo's blocks may be frozen).
        element_bytes: Of a parameter in memory.
    """
    held = segment_sizes(folder, cut)[role].num_parameters
    added = lora_parameters(folder, cut, adapter)[role] if isinstance(adapter, LoraAdapter) else 0
    trained = (added if isinstance(adapter, LoraAdapter) else held) if trains else 0
    per_layer = batch_tokens * folder.hidden_size * _ACTIVATION_BYTES_PER_HIDDEN
    return Memory(
        weights=held * element_bytes + added * _FLOAT32_BYTES,
        gradients=trained * (_FLOAT32_BYTES if added else element_bytes),
        optimizer=trained * _moments(optimizer) * _FLOAT32_BYTES,
        activations=per_layer * len(cut.layers(role)) * element_bytes // _ACTIVATION_ELEMENT_BYTES,
    )


def _moments(optimizer: AdamWSpec | SGDSpec) -> int:
    if isinstance(optimizer, AdamWSpec):
        return 2
    return 1 if optimizer.momentum else 0
