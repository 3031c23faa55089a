"""Outcomes: what a party says about its gradients at the end of a step, and what follows from it.

One silo: the global norm spans bottom, trunk and top, so that clipping is exact. Several silos: trunk and
silo blocks clip by their own norms. A gradient that is not finite anywhere moves nothing anywhere.
"""

import math
from collections.abc import Iterable, Sequence

from splitlearn.training.clipping import total_norm
from splitlearn.wire import Outcome


def silo_outcome(
    norms_bottom: tuple[float, ...], norms_top: tuple[float, ...], *, loss_is_finite: bool, num_tokens: int
) -> Outcome:
    """Return a silo's outcome of a step; ``num_tokens`` counts its label tokens over all micro-batches."""
    finite = loss_is_finite and math.isfinite(total_norm(norms_bottom + norms_top))
    return Outcome(
        norms_bottom=norms_bottom, norms_trunk=(), norms_top=norms_top, finite=finite, num_tokens=num_tokens
    )


def trunk_outcome(norms_trunk: tuple[float, ...], *, num_tokens: int) -> Outcome:
    """Return the trunk's outcome of a step; ``num_tokens`` counts the label tokens of all silos."""
    return Outcome(
        norms_bottom=(),
        norms_trunk=norms_trunk,
        norms_top=(),
        finite=math.isfinite(total_norm(norms_trunk)),
        num_tokens=num_tokens,
    )


def all_finite(outcomes: Iterable[Outcome]) -> bool:
    """Say whether every party found its gradients finite."""
    return all(outcome.finite for outcome in outcomes)


def joint_norm(silo: Outcome, trunk: Outcome) -> float:
    """Return the global norm of a one-silo job, over all tensors in model order."""
    return total_norm(silo.norms_bottom + trunk.norms_trunk + silo.norms_top)


def token_weights(num_tokens: Sequence[int]) -> list[float]:
    """Return each silo's share n_i / N of the step's label tokens; zeros when there are none at all."""
    total = sum(num_tokens)
    return [count / total if total else 0.0 for count in num_tokens]
