"""Between torch and the wire: tensors to arrays and back, layouts to lengths and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitlearn.errors import ProtocolError
from splitlearn.partition import BatchLayout
from splitlearn.wire import Activations, PaddingSide

_SIDES = {"left": PaddingSide.LEFT, "right": PaddingSide.RIGHT}


def to_array(tensor_ND: Tensor) -> NDArray[np.float32]:
    """Return a detached tensor's values as an fp32 array; shares memory where it lies on the CPU as fp32."""
    array: NDArray[np.float32] = tensor_ND.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
    return array


def to_tensor(array: NDArray[np.float32], *, device: torch.device | str = "cpu") -> Tensor:
    """Return an opened array as a tensor on ``device``; shares memory on the CPU."""
    return torch.from_numpy(array).to(device)


def to_padding_side(layout: BatchLayout) -> PaddingSide:
    """Return the wire's word for where a layout's short rows are filled."""
    return _SIDES[layout.padding_side]


def to_layout(message: Activations, *, max_rows: int, max_tokens: int) -> BatchLayout:
    """Return the layout that a silo announced.

    Args:
        message: The silo's activations.
        max_rows: Most rows of a batch by the job's specification. With ``max_tokens`` it bounds the
            padded batch, which may be far larger than what was sent.
        max_tokens: Longest row by the job's specification.

    Raises:
        ProtocolError: There are more rows, or a row is empty or longer.
    """
    if len(message.lengths) > max_rows:
        raise ProtocolError(
            f"a batch of {len(message.lengths)} rows; the specification allows {max_rows} (batch_size)"
        )
    wrong = [length for length in message.lengths if not 0 < length <= max_tokens]
    if wrong:
        raise ProtocolError(
            f"a row of {wrong[0]} tokens; the specification allows 1 to {max_tokens} (max_tokens)"
        )
    is_left = message.padding_side is PaddingSide.LEFT
    return BatchLayout(tuple(message.lengths), "left" if is_left else "right")
