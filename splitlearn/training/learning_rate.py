"""The learning rate: a pure function of the global step, so that no party keeps a scheduler's state."""

import math

from splitlearn.spec import LearningRateSpec


def learning_rate(spec: LearningRateSpec, *, step: int, total_steps: int) -> float:
    """Return the learning rate of one optimiser step.

    Rises in equal increments from peak / (warmup_steps + 1), is the peak at step ``warmup_steps``, and
    reaches peak * floor at the job's last step (cosine: arXiv 1608.03983, without restarts).

    Args:
        spec: Peak, warm-up, decay and floor.
        step: Global step, counted from 0.
        total_steps: Steps of the whole job.
    """
    if step < spec.warmup_steps:
        return spec.peak * (step + 1) / (spec.warmup_steps + 1)
    decaying_steps = total_steps - 1 - spec.warmup_steps
    progress = min((step - spec.warmup_steps) / decaying_steps, 1.0) if decaying_steps > 0 else 0.0
    return spec.peak * (spec.floor + (1.0 - spec.floor) * _remaining(spec.decay, progress))


def _remaining(decay: str, progress: float) -> float:
    if decay == "linear":
        return 1.0 - progress
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
