"""The three segments as modules, called with a batch layout instead of a mask.

Axes: B rows, T padded length, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from splitlearn.errors import StorageError, UnservedError
from splitlearn.families import Family
from splitlearn.partition.layout import BatchLayout
from splitlearn.planning import Cut, Role


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a segment comes from.

    Attributes:
        family: The model's family.
        cut: The cut.
        role: Which segment of it.
        hidden_size: D.
        vocab_size: V.
        ties_embeddings: Whether the whole model's head is its embedding.
        linear_modules: Names of all linear modules of the *whole* model, which adapters may target.
        bytes_read: Bytes of tensors read from disk to load it.
        tensors_read: Names, on disk, of the tensors read.
    """

    family: Family
    cut: Cut
    role: Role
    hidden_size: int
    vocab_size: int
    ties_embeddings: bool
    linear_modules: tuple[str, ...]
    bytes_read: int
    tensors_read: tuple[str, ...]


class Segment(nn.Module):
    """A Hugging Face decoder with only some of its layers; parameter names are the whole model's.

    Args:
        core: The cut causal language model.
        origin: Where it comes from.

    Attributes:
        core: The cut model, wrapped by PEFT once an adapter is applied.
        origin: Where it comes from.
    """

    core: Any

    def __init__(self, core: Any, origin: Origin) -> None:
        super().__init__()
        self.core = core
        self.origin = origin

    @property
    def base(self) -> Any:
        """The cut causal language model itself, below any adapter."""
        return self.core.get_base_model() if isinstance(self.core, PeftModel) else self.core

    @property
    def bytes_read(self) -> int:
        """Bytes of tensors read from disk to load this segment."""
        return self.origin.bytes_read

    @property
    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """What an optimiser may change: (name in the whole model, parameter), in the whole model's order.

        A tied embedding is the bottom's, and listed there alone.
        """
        return list(self.named_trainable())

    def named_trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield :attr:`trainable` one by one."""
        tied = self.origin.role is Role.TOP and self.origin.ties_embeddings
        for name, parameter in self.core.named_parameters():
            if parameter.requires_grad and not (tied and name.endswith(self.origin.family.head_weight)):
                yield name, parameter

    def recompute_layers(self, compute: Callable[..., Any] | None) -> None:
        """Run each layer's forward, while training, by a function; None runs it plainly.

        Args:
            compute: Called with the layer's forward and its inputs.

        Raises:
            UnservedError: The family's layers do not know how.
        """
        decoder = self.base.get_submodule(self.origin.family.decoder)
        for layer in getattr(decoder, self.origin.family.layers):
            if compute is not None and not isinstance(layer, GradientCheckpointingLayer):
                raise UnservedError(
                    f"gradient_checkpointing: layers of the family {self.origin.family.model_type} cannot be "
                    "computed again; leave it out"
                )
            layer.gradient_checkpointing = compute is not None
            layer._gradient_checkpointing_func = compute  # noqa: SLF001 - as the library itself sets it

    def _decode(self, layout: BatchLayout, **inputs: Tensor) -> Tensor:
        decoder = self.base.get_submodule(self.origin.family.decoder)
        device = next(iter(inputs.values())).device
        output = decoder(**inputs, attention_mask=layout.attention_mask(device), use_cache=False)
        hidden_BTD: Tensor = output.last_hidden_state
        return hidden_BTD


class BottomSegment(Segment):
    """Embedding and first layers; at the silo."""

    def forward(self, input_ids_BT: Tensor, layout: BatchLayout) -> Tensor:
        """Turn tokens into the activations that leave the silo once packed.

        Args:
            input_ids_BT: [B, T] int64; pads may hold any token of the vocabulary.
            layout: Where the tokens are.

        Returns:
            [B, T, D] hidden states; at pads they mean nothing.
        """
        if layout.num_rows == 0:
            weight = self.base.get_input_embeddings().weight
            return weight.new_zeros(0, layout.width, self.origin.hidden_size)  # type: ignore[no-any-return]
        return self._decode(layout, input_ids=input_ids_BT)


class TrunkSegment(Segment):
    """The layers between; at the worker."""

    def forward(self, hidden_BTD: Tensor, layout: BatchLayout) -> Tensor:
        """Carry hidden states through the trunk's layers.

        Args:
            hidden_BTD: [B, T, D], zeros at pads, as unpacked.
            layout: Where the tokens are.

        Returns:
            [B, T, D] hidden states; at pads they mean nothing.
        """
        return self._decode(layout, inputs_embeds=hidden_BTD) if layout.num_rows else hidden_BTD


class TopSegment(Segment):
    """Last layers, final norm and head; at the silo."""

    def forward(self, hidden_BTD: Tensor, layout: BatchLayout) -> Tensor:
        """Turn hidden states into logits.

        Args:
            hidden_BTD: [B, T, D], zeros at pads, as unpacked.
            layout: Where the tokens are.

        Returns:
            [B, T, V] logits; at pads they mean nothing.
        """
        if layout.num_rows == 0:
            return hidden_BTD.new_zeros(0, layout.width, self.origin.vocab_size)
        mask = layout.attention_mask(hidden_BTD.device)
        logits_BTV: Tensor = self.base(inputs_embeds=hidden_BTD, attention_mask=mask, use_cache=False).logits
        return logits_BTV


def freeze(segment: nn.Module) -> None:
    """Exclude every parameter of a segment from training."""
    segment.requires_grad_(requires_grad=False)


def segment_state(segment: Segment) -> dict[str, Tensor]:
    """Return copies of a segment's part of a result, on the CPU, by their names in the whole model.

    Its trainable tensors, and the halves of trained LoRA adapters that are frozen (``freeze_a``).
    """
    return {name: parameter.detach().cpu().clone() for name, parameter in result_parameters(segment).items()}


def result_parameters(segment: Segment) -> dict[str, nn.Parameter]:
    """Return what :func:`segment_state` copies: trainable parameters, and frozen halves of their adapters."""
    trainable = dict(segment.named_trainable())
    return {
        name: parameter
        for name, parameter in segment.core.named_parameters()
        if name in trainable or name.replace(".lora_A.", ".lora_B.") in trainable
    }


def load_segment_state(segment: Segment, state: Mapping[str, Tensor]) -> None:
    """Put tensors, named as by :func:`segment_state`, back into a segment.

    Raises:
        StorageError: A tensor is missing, one is unknown, or a shape differs; nothing is changed.
    """
    result = result_parameters(segment)
    unmatched = sorted(result.keys() ^ state.keys())
    if unmatched:
        raise StorageError(
            f"the saved state and the {segment.origin.role} segment differ in {len(unmatched)} tensors, "
            f"first {unmatched[0]!r}; it belongs to another job, cut or adapter"
        )
    for name, parameter in result.items():
        if state[name].shape != parameter.shape:
            raise StorageError(
                f"the saved {name!r} has shape {tuple(state[name].shape)}, "
                f"the segment's has {tuple(parameter.shape)}; it belongs to another job"
            )
    for name, parameter in result.items():
        parameter.data.copy_(state[name])
