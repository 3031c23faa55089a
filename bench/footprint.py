"""How much memory a party needs while it trains: what was measured, and what follows from sizes."""

from collections.abc import Collection
from dataclasses import dataclass

from splitlearn.planning import ModelFolder, Role
from splitlearn.planning.estimates import estimate_memory
from splitlearn.spec import JobSpec

_FLOAT32_BYTES = 4
_LOGITS_KEPT = 3  # the logits, their log-softmax, their gradient


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


def theory_of(folder: ModelFolder, roles: Collection[Role], spec: JobSpec, *, vocab_size: int) -> Theory:
    """Say what a party needs that holds some segments, by the planner's arithmetic.

    Args:
        folder: The model.
        roles: The segments that it holds; one that holds the top has the logits.
        spec: The job.
        vocab_size: Of the model.
    """
    cut = spec.silos[0].cut
    num_tokens = spec.batch_size * spec.max_tokens
    parts = [
        estimate_memory(
            folder,
            folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers),
            role,
            adapter=spec.adapter,
            optimizer=spec.optimizer,
            batch_tokens=num_tokens,
        )
        for role in roles
    ]
    has_head = Role.TOP in roles
    return Theory(
        weights=sum(part.weights for part in parts),
        gradients=sum(part.gradients for part in parts),
        optimizer=sum(part.optimizer for part in parts),
        activations=sum(part.activations for part in parts),
        logits=_LOGITS_KEPT * num_tokens * vocab_size * _FLOAT32_BYTES if has_head else 0,
    )
