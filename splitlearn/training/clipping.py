"""Clipping by the global norm, computed from per-tensor norms that may come from several parties.

The arithmetic is that of :func:`torch.nn.utils.clip_grad_norm_`, operation by operation, so that parties
which exchange the norms of their tensors scale by the bits that one process would have scaled by.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_EPSILON = 1e-6
"""Added to the total norm before dividing, as torch does."""


def gradient_norms(parameters: Iterable[nn.Parameter]) -> tuple[float, ...]:
    """Return the L2 norm, in fp32, of each parameter's gradient; 0 for one without a gradient.

    Every parameter has an entry, so that the count says nothing about the data.
    """
    norms = [_norm(parameter) for parameter in parameters]
    if not norms:
        return ()
    # Gathered on one device, where parameters lie on several, and fetched at once.
    values: list[float] = torch.stack([norm.to(norms[0].device) for norm in norms]).tolist()
    return tuple(values)


def _norm(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros((), device=parameter.device)
    norm: Tensor = torch.linalg.vector_norm(parameter.grad.detach().float(), 2.0)
    return norm


def total_norm(norms: Sequence[float]) -> float:
    """Return the global L2 norm of tensors whose own norms are given in model order; may be non-finite."""
    if not norms:
        return 0.0
    return float(torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float32), 2.0))


def clip_coefficient(total: float, *, max_norm: float) -> float:
    """Return what to multiply gradients by, at most 1, so that their global norm is at most max_norm."""
    coefficient = max_norm / (torch.tensor(total, dtype=torch.float32) + _EPSILON)
    return torch.clamp(coefficient, max=1.0).item()


def scale_gradients(parameters: Iterable[nn.Parameter], coefficient: float) -> None:
    """Multiply every gradient in place. A coefficient of 1 changes no bit and costs nothing."""
    if coefficient == 1.0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(coefficient)
