"""Token rows to padded batches, and which rows make up which batch.

Axes: B rows of a batch, T padded positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitlearn.partition import BatchLayout, PaddingSide
from splitlearn.tasks.chance import keyed_random
from splitlearn.tasks.rows import IGNORED, TokenRow

_EPOCHS_KEPT = 2  # a batch at the border of two epochs needs both


@dataclass(frozen=True)
class TokenBatch:
    """Rows padded to one width.

    Attributes:
        input_ids_BT: int64; padded places hold the pad token.
        labels_BT: int64, not shifted; ``IGNORED`` where padded, where nothing is to be learned, and at
            the first token of every row.
        layout: Lengths and padding side, all that crosses of the padding.
    """

    input_ids_BT: Tensor  # noqa: N815 - tensors carry their axes
    labels_BT: Tensor  # noqa: N815 - same
    layout: BatchLayout

    @property
    def num_label_tokens(self) -> int:
        """Tokens that the loss is summed over: N of the token-weighted mean."""
        return int((self.labels_BT[:, 1:] != IGNORED).sum())

    def __repr__(self) -> str:
        """Say the shape and no token: batches hold private text."""
        rows, width = self.input_ids_BT.shape
        return f"TokenBatch({rows} rows, {width} positions, {self.layout.num_valid} valid)"


def collate(
    rows: Sequence[TokenRow], *, pad_token_id: int, padding_side: PaddingSide = "right"
) -> TokenBatch:
    """Pad rows to the longest of them. No rows give an empty batch of width 0."""
    layout = BatchLayout(tuple(len(row.input_ids) for row in rows), padding_side)
    input_ids_BT = torch.full((len(rows), layout.width), pad_token_id, dtype=torch.int64)
    labels_BT = torch.full((len(rows), layout.width), IGNORED, dtype=torch.int64)
    for index, row in enumerate(rows):
        start = layout.width - len(row.input_ids) if padding_side == "left" else 0
        end = start + len(row.input_ids)
        input_ids_BT[index, start:end] = torch.tensor(row.input_ids, dtype=torch.int64)
        # Left padding would put a pad before the first token and the shifted loss would learn from it.
        labels_BT[index, start + 1 : end] = torch.tensor(row.labels[1:], dtype=torch.int64)
    return TokenBatch(input_ids_BT, labels_BT, layout)


def concatenate_batches(batches: Sequence[TokenBatch], *, pad_token_id: int) -> TokenBatch:
    """Return one batch with the rows of all, in order, padded to the widest.

    Args:
        batches: At least one, all padded on the same side.
        pad_token_id: Fills the places that become new.
    """
    layout = BatchLayout.concatenate([batch.layout for batch in batches])

    def widened(rows_BT: Tensor, fill: int) -> Tensor:
        missing = layout.width - rows_BT.shape[1]
        sides = (missing, 0) if layout.padding_side == "left" else (0, missing)
        return torch.nn.functional.pad(rows_BT, sides, value=fill)

    return TokenBatch(
        torch.cat([widened(batch.input_ids_BT, pad_token_id) for batch in batches]),
        torch.cat([widened(batch.labels_BT, IGNORED) for batch in batches]),
        layout,
    )


class BatchPlan:
    """Which rows make up each training batch of one silo: the same in every run, in any order of asking.

    The rows are dealt without end: every epoch is a permutation of all rows, keyed by (seed, silo, epoch),
    and one epoch follows the other without a gap, so every batch is full and may span two epochs (or more,
    where there are fewer rows than a batch holds).

    Args:
        rows: The silo's training rows, at least one.
        batch_size: Rows per batch.
        seed: The job's seed.
        silo_name: Keys the permutations, with the seed.
        pad_token_id: Fills padded places.
        padding_side: Where rows are padded.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        *,
        batch_size: int,
        seed: int,
        silo_name: str,
        pad_token_id: int,
        padding_side: PaddingSide = "right",
    ) -> None:
        assert rows, "split_holdout leaves at least one training row"
        assert batch_size >= 1, "JobSpec refuses an empty batch"
        self._rows = tuple(rows)
        self._batch_size = batch_size
        self._key = (seed, silo_name)
        self._pad_token_id = pad_token_id
        self._padding_side: PaddingSide = padding_side
        self._orders: dict[int, list[int]] = {}

    def batch(self, index: int) -> TokenBatch:
        """Return the batch of a step; steps (or micro-batches) count from 0."""
        rows = [self._rows[number] for number in self.row_numbers(index)]
        return collate(rows, pad_token_id=self._pad_token_id, padding_side=self._padding_side)

    def row_numbers(self, index: int) -> tuple[int, ...]:
        """Return which rows make up a batch, as numbers into the rows."""
        assert index >= 0, "batches count from 0"
        first = index * self._batch_size
        places = range(first, first + self._batch_size)
        return tuple(self._order(place // len(self._rows))[place % len(self._rows)] for place in places)

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            chance = keyed_random("epoch", *self._key, epoch)
            draws = [chance.random() for _ in self._rows]
            while len(self._orders) >= _EPOCHS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = sorted(range(len(draws)), key=lambda number: (draws[number], number))
        return self._orders[epoch]
