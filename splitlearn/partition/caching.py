"""Segments that remember: keys and values of a batch are kept, so that a new token costs one token.

The batch is padded at the left: every row's last token stands in the last column, new tokens fill one column
after another, and windows, which count columns, see the same tokens as in a batch of one. What is handed to
the library is what its own ``generate`` hands to the whole model, so the results are the same bit for bit.

Axes: B rows, Q new columns, T columns so far, N tokens without pads, D hidden size, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from splitlearn.errors import ProtocolError
from splitlearn.partition.layout import BatchLayout
from splitlearn.partition.segments import BottomSegment, Segment, TopSegment, TrunkSegment


class SegmentCache:
    """The keys and values of one batch in one segment.

    Args:
        segment: The segment; in evaluation mode whenever it computes with this cache.
        lengths: Tokens of each row's prompt.
    """

    def __init__(self, segment: Segment, lengths: Sequence[int]) -> None:
        self.prompt = BatchLayout(tuple(lengths), "left")
        self._num_decoded = -1  # columns after the prompt; -1 before the prompt itself
        config = segment.base.config
        # A segment without layers keeps nothing, and a cache without layers could not say how long it is.
        self._kept = DynamicCache(config=config) if config.num_hidden_layers else None
        decoder = segment.base.get_submodule(segment.origin.family.decoder)
        self._takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters

    @property
    def bytes_by_layer(self) -> list[int]:
        """Bytes of keys and values that each layer holds now."""
        layers = [] if self._kept is None else self._kept.layers
        return [layer.keys.nbytes + layer.values.nbytes if layer.is_initialized else 0 for layer in layers]

    @property
    def windows(self) -> list[int | None]:
        """Columns that each layer looks back over; None for all."""
        layers = [] if self._kept is None else self._kept.layers
        return [layer.sliding_window if layer.is_sliding else None for layer in layers]

    def advance(self, device: torch.device) -> dict[str, Any]:
        """Return what the decoder needs besides its input: for the prompt at first, then by column."""
        self._num_decoded += 1
        mask_BT = self._mask(device)
        num_new = self.prompt.width if self._num_decoded == 0 else 1
        arguments: dict[str, Any] = {"attention_mask": mask_BT, "use_cache": self._kept is not None}
        if self._kept is None:
            arguments["attention_mask"] = mask_BT[:, -num_new:]
        else:
            arguments["past_key_values"] = self._kept
        if self._takes_positions:
            positions_BT = (mask_BT.cumsum(-1) - 1).masked_fill(mask_BT == 0, 0)
            arguments["position_ids"] = positions_BT[:, -num_new:]
        return arguments

    def _mask(self, device: torch.device) -> Tensor:
        prompt_BT = self.prompt.attention_mask(device)
        if not self._num_decoded:
            return prompt_BT
        # Rows that are finished count on: they see only themselves, and others do not see them.
        return torch.cat([prompt_BT, prompt_BT.new_ones(self.prompt.num_rows, self._num_decoded)], dim=1)


class BottomDecoder:
    """The bottom with a cache; gives out what crosses.

    Args:
        segment: The bottom, in evaluation mode.
        lengths: Tokens of each row's prompt.
    """

    def __init__(self, segment: BottomSegment, lengths: Sequence[int]) -> None:
        self._segment, self._cache = segment, SegmentCache(segment, lengths)

    def prefill(self, ids_BT: Tensor) -> Tensor:
        """Return the prompts' packed activations [N, D] of left-padded ids [B, T]."""
        return self._cache.prompt.pack(_decode(self._segment, self._cache, input_ids=ids_BT))

    def decode(self, ids_B: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the activations [N, D] of the new tokens of some rows.

        Args:
            ids_B: [B] int64, the new token of each row; of those that do not go on, any.
            rows: Rows that go on, ascending.
        """
        hidden_BQD = _decode(self._segment, self._cache, input_ids=ids_B[:, None])
        return _some(hidden_BQD[:, 0], rows)


class TrunkDecoder:
    """The trunk with a cache: packed activations in, packed hidden states out.

    Args:
        segment: The trunk, in evaluation mode.
        lengths: Tokens of each row's prompt.
    """

    def __init__(self, segment: TrunkSegment, lengths: Sequence[int]) -> None:
        self._segment, self.cache = segment, SegmentCache(segment, lengths)
        self._device = next(segment.parameters()).device

    def prefill(self, hidden_ND: Tensor) -> Tensor:
        """Return the prompts' packed hidden states [N, D].

        Raises:
            ProtocolError: The tensor's shape is not that of the prompts: the silo's fault.
        """
        prompt = self.cache.prompt
        _expect(self._segment, hidden_ND, prompt.num_valid)
        hidden_BTD = prompt.unpack(hidden_ND.to(self._device))
        return prompt.pack(_decode(self._segment, self.cache, inputs_embeds=hidden_BTD))

    def decode(self, hidden_ND: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the hidden states [N, D] of the new tokens of some rows, ascending.

        Raises:
            ProtocolError: The tensor's shape is not that of the rows: the silo's fault.
        """
        _expect(self._segment, hidden_ND, len(rows))
        hidden_BD = _all_rows(hidden_ND.to(self._device), rows, num_rows=self.cache.prompt.num_rows)
        return _some(_decode(self._segment, self.cache, inputs_embeds=hidden_BD[:, None])[:, 0], rows)


class TopDecoder:
    """The top with a cache: hidden states in, logits of the last column out.

    Args:
        segment: The top, in evaluation mode.
        lengths: Tokens of each row's prompt.
    """

    def __init__(self, segment: TopSegment, lengths: Sequence[int]) -> None:
        self._segment, self._cache = segment, SegmentCache(segment, lengths)

    def prefill(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits [B, V] after each prompt.

        Raises:
            ProtocolError: The tensor's shape is not that of the prompts: the trunk's fault.
        """
        prompt = self._cache.prompt
        _expect(self._segment, hidden_ND, prompt.num_valid)
        return self._logits(prompt.unpack(hidden_ND))

    def decode(self, hidden_ND: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the logits [B, V] after the new tokens; of rows that do not go on they mean nothing.

        Raises:
            ProtocolError: The tensor's shape is not that of the rows: the trunk's fault.
        """
        _expect(self._segment, hidden_ND, len(rows))
        return self._logits(_all_rows(hidden_ND, rows, num_rows=self._cache.prompt.num_rows)[:, None])

    def _logits(self, hidden_BQD: Tensor) -> Tensor:
        arguments = self._cache.advance(hidden_BQD.device)
        logits_BQV: Tensor = self._segment.base(
            inputs_embeds=hidden_BQD, logits_to_keep=1, **arguments
        ).logits
        return logits_BQV[:, -1]


def cache_bytes_by_layer(segment: TrunkSegment) -> tuple[list[int], list[int | None]]:
    """Measure what one token of one row takes in the cache of each layer, by computing one.

    Returns:
        Bytes of each layer, and the columns that it looks back over (None for all).
    """
    device = next(segment.parameters()).device
    decoder = TrunkDecoder(segment, (1,))
    decoder.prefill(torch.zeros(1, segment.origin.hidden_size, device=device))
    return decoder.cache.bytes_by_layer, decoder.cache.windows


def _expect(segment: Segment, hidden_ND: Tensor, num_tokens: int) -> None:
    expected = (num_tokens, segment.origin.hidden_size)
    if hidden_ND.shape != expected:
        raise ProtocolError(
            f"hidden states for the {segment.origin.role} have shape {list(hidden_ND.shape)}, "
            f"expected {list(expected)}"
        )


def _decode(segment: Segment, cache: SegmentCache, **inputs: Tensor) -> Tensor:
    decoder = segment.base.get_submodule(segment.origin.family.decoder)
    device = next(iter(inputs.values())).device
    hidden_BQD: Tensor = decoder(**inputs, **cache.advance(device)).last_hidden_state
    return hidden_BQD


def _some(hidden_BD: Tensor, rows: Sequence[int]) -> Tensor:
    if len(rows) == len(hidden_BD):
        return hidden_BD
    return hidden_BD.index_select(0, torch.tensor(rows, device=hidden_BD.device))


def _all_rows(hidden_ND: Tensor, rows: Sequence[int], *, num_rows: int) -> Tensor:
    if len(rows) == num_rows:
        return hidden_ND
    hidden_BD = hidden_ND.new_zeros(num_rows, hidden_ND.shape[1])
    return hidden_BD.index_copy(0, torch.tensor(rows, device=hidden_ND.device), hidden_ND)
