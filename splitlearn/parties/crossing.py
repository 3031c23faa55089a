"""Between torch and the wire: tensors to arrays and back, layouts to lengths and back."""

from splitlearn.errors import ProtocolError
from splitlearn.partition import BatchLayout, to_array, to_tensor
from splitlearn.wire import Activations, PaddingSide

__all__ = ["to_array", "to_layout", "to_padding_side", "to_tensor"]

_SIDES = {"left": PaddingSide.LEFT, "right": PaddingSide.RIGHT}


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
