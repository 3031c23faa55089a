"""Where a model is cut: which layers belong to bottom, trunk and top."""

from dataclasses import dataclass
from enum import StrEnum

from splitlearn.planning.errors import CutError


class Role(StrEnum):
    """One of the three segments, in the order in which hidden states pass them."""

    BOTTOM = "bottom"
    TRUNK = "trunk"
    TOP = "top"


@dataclass(frozen=True, slots=True)
class Cut:
    """How many of the model's layers stay at the silo, at either end.

    Attributes:
        bottom_layers: Layers after the embedding that the silo keeps; 0 keeps the embedding alone.
        top_layers: Layers before the final norm that the silo keeps; 0 keeps norm and head alone.
        num_layers: Layers of the whole model.

    Raises:
        CutError: Nothing would be left for the trunk, or a count is negative.
    """

    bottom_layers: int
    top_layers: int
    num_layers: int

    def __post_init__(self) -> None:
        if self.bottom_layers < 0 or self.top_layers < 0:
            raise CutError(
                f"bottom_layers {self.bottom_layers} and top_layers {self.top_layers} must be 0 or more"
            )
        kept = self.bottom_layers + self.top_layers
        if kept >= self.num_layers:
            raise CutError(
                f"the cut keeps {self.bottom_layers} bottom + {self.top_layers} top = {kept} layers at the "
                f"silo, but the model has {self.num_layers} and the trunk needs at least one; "
                f"keep at most {max(self.num_layers - 1, 0)}"
            )

    def layers(self, role: Role) -> range:
        """Return the original numbers of a segment's layers."""
        first_of_top = self.num_layers - self.top_layers
        return {
            Role.BOTTOM: range(self.bottom_layers),
            Role.TRUNK: range(self.bottom_layers, first_of_top),
            Role.TOP: range(first_of_top, self.num_layers),
        }[role]
