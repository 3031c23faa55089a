"""How much memory a party needs while it trains: what was measured, and what follows from sizes."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from splitlearn.planning import ModelFolder, Role, Training, estimate_memory
from splitlearn.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Theory:
    """Bytes that a party's layers need, by what they are for.

    Attributes:
        weights: Parameters, with the adapter's.
        gradients: Of what is trained.
        optimizer: Its state.
        activations: Kept by the layers for the backward pass, by the planner's estimate.
        logits: And their copies at the loss, for a party that holds the head.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def theory_of(folder: ModelFolder, roles: Collection[Role], spec: JobSpec) -> Theory:
    """Say what a party needs that holds some segments, by the planner's arithmetic.

    Args:
        folder: The model.
        roles: The segments that it holds; one that holds the top has the logits. All are trained.
        spec: The job.
    """
    cut = spec.silos[0].cut
    parts = [
        estimate_memory(
            folder,
            folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers),
            role,
            replace(Training.of(spec, role), trains=True),
        )
        for role in roles
    ]
    return Theory(
        weights=sum(part.weights for part in parts),
        gradients=sum(part.gradients for part in parts),
        optimizer=sum(part.optimizer for part in parts),
        activations=sum(part.activations for part in parts),
        logits=sum(part.logits for part in parts),
    )
