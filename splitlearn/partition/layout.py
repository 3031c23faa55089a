"""Which cells of a padded batch hold tokens: all that crosses the cut besides the tokens' hidden states.

Axes: B rows, T padded length, D hidden size, N valid tokens of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from splitlearn.errors import DataError

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True)
class BatchLayout:
    """Lengths and padding side of a batch. Masks are rebuilt from it; pads never cross.

    Attributes:
        lengths: Valid tokens of each row, at least one each. No rows at all is legal.
        padding_side: Where the pads are.
        width: The padded length T; 0 stands for the longest row.

    Raises:
        DataError: A row is empty or longer than the width, or the side is neither left nor right.
    """

    lengths: tuple[int, ...]
    padding_side: PaddingSide = "right"
    width: int = 0

    def __post_init__(self) -> None:
        longest = max(self.lengths, default=0)
        if self.width == 0:
            object.__setattr__(self, "width", longest)
        if self.padding_side not in ("left", "right"):
            raise DataError(f"padding_side is {self.padding_side!r}; it must be 'left' or 'right'")
        if min(self.lengths, default=1) < 1:
            raise DataError(
                f"row {self.lengths.index(min(self.lengths))} of the batch has no token; leave it out"
            )
        if longest > self.width:
            raise DataError(f"a row of the batch has {longest} tokens, its padded width is {self.width}")

    @classmethod
    def concatenate(cls, layouts: Sequence[Self]) -> Self:
        """Return the layout of several batches' rows in order, padded to a common width.

        Raises:
            DataError: The batches are padded at different sides.
        """
        sides = sorted({layout.padding_side for layout in layouts})
        if len(sides) > 1:
            raise DataError(
                "batches padded left and right cannot share a trunk step; choose one padding_side"
            )
        lengths = tuple(length for layout in layouts for length in layout.lengths)
        return cls(
            lengths, sides[0] if sides else "right", max((layout.width for layout in layouts), default=0)
        )

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.lengths)

    @cached_property
    def num_valid(self) -> int:
        """N: tokens of all rows."""
        return sum(self.lengths)

    @property
    def has_pads(self) -> bool:
        """Whether any cell is a pad."""
        return self.num_valid != self.num_rows * self.width

    def valid(self, device: torch.device | str = "cpu") -> Tensor:
        """Return [B, T] bool: True where a token is."""
        return self._valid_cells.to(device)

    def attention_mask(self, device: torch.device | str = "cpu") -> Tensor:
        """Return [B, T] int64, as Hugging Face models take it: 1 at tokens, 0 at pads."""
        return self._valid_cells.to(device=device, dtype=torch.int64)

    def pack(self, hidden_BTD: Tensor) -> Tensor:
        """Drop the pads.

        Args:
            hidden_BTD: [B, T, ...] of any type.

        Returns:
            [N, ...]: the tokens, row by row. Differentiable; a pad's gradient is zero.

        Raises:
            DataError: The first two axes are not this layout's.
        """
        if hidden_BTD.shape[:2] != (self.num_rows, self.width):
            raise DataError(
                f"a batch of {tuple(hidden_BTD.shape[:2])} rows x width was given for a layout of "
                f"{(self.num_rows, self.width)}"
            )
        cells = hidden_BTD.reshape(self.num_rows * self.width, *hidden_BTD.shape[2:])
        return cells.index_select(0, self._packed_cells.to(cells.device)) if self.has_pads else cells

    def unpack(self, hidden_ND: Tensor) -> Tensor:
        """Put packed tokens back into their cells.

        Args:
            hidden_ND: [N, ...] of any type.

        Returns:
            [B, T, ...] with zeros at pads. Differentiable.

        Raises:
            DataError: The first axis is not this layout's number of tokens.
        """
        if hidden_ND.shape[0] != self.num_valid:
            raise DataError(f"{hidden_ND.shape[0]} packed tokens were given for a layout of {self.num_valid}")
        shape = (self.num_rows, self.width, *hidden_ND.shape[1:])
        if not self.has_pads:
            return hidden_ND.reshape(shape)
        cells = hidden_ND.new_zeros(self.num_rows * self.width, *hidden_ND.shape[1:])
        return cells.index_copy(0, self._packed_cells.to(cells.device), hidden_ND).reshape(shape)

    @cached_property
    def _valid_cells(self) -> Tensor:
        lengths_B1 = torch.tensor(self.lengths, dtype=torch.int64).reshape(-1, 1)
        column_T = torch.arange(self.width)
        if self.padding_side == "right":
            return column_T < lengths_B1
        return column_T >= self.width - lengths_B1

    @cached_property
    def _packed_cells(self) -> Tensor:
        return self._valid_cells.flatten().nonzero().flatten()
