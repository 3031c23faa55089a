"""How much a peer may make us read, hold or allocate."""

from dataclasses import dataclass, fields

from splitlearn.errors import LocalProtocolError
from splitlearn.wire.envelope import ENVELOPE_BYTES, TAG_BYTES
from splitlearn.wire.errors import LimitError

MIB = 1 << 20
GIB = 1 << 30
_U32_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds on everything that is read; each is checked before the allocation that it bounds.

    Attributes:
        max_frame_bytes: One frame: envelope, ciphertext and tag.
        max_message_bytes: One message's plaintext, summed over its fragments.
        max_tensor_dims: Axes of one tensor.
        max_tensor_elements: Elements of one tensor, where an axis of length 0 counts as 1.
        max_list_items: Items of one list (row lengths, gradient norms).
        max_words: Words of one part of a secure sum.
    """

    max_frame_bytes: int = 4 * MIB + ENVELOPE_BYTES + TAG_BYTES
    max_message_bytes: int = GIB
    max_tensor_dims: int = 4
    max_tensor_elements: int = 1 << 28
    max_list_items: int = 1 << 16
    max_words: int = 1 << 18

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 1 <= value <= _U32_MAX:
                raise LocalProtocolError(f"{field.name} is {value}; choose 1 to {_U32_MAX}")
        if self.max_frame_bytes <= ENVELOPE_BYTES + TAG_BYTES:
            raise LocalProtocolError(
                f"max_frame_bytes is {self.max_frame_bytes}, envelope and tag alone take "
                f"{ENVELOPE_BYTES + TAG_BYTES}; raise it"
            )

    @property
    def max_fragment_bytes(self) -> int:
        """Plaintext bytes of a message that fit in one sealed frame."""
        return self.max_frame_bytes - ENVELOPE_BYTES - TAG_BYTES

    def check(self, name: str, value: int, *, what: str) -> None:
        """Compare a size with the limit of that name.

        Args:
            name: Name of the limit: a field of this class.
            value: The size that was announced or is about to be sent.
            what: The quantity, for the error message.

        Raises:
            LimitError: The value exceeds the limit.
        """
        limit = getattr(self, name)
        if value > limit:
            raise LimitError(
                f"{what} is {value}, the limit is {limit}; send less at once or raise {name} on both sides"
            )
