"""Half precision: forwards under autocast, and the scale of fp16's loss.

Parameters, gradients and the optimiser stay fp32; matrix products of a forward, and of the backward that
answers it, are computed in bf16 or fp16 (mixed precision, arXiv 1710.03740).

fp16 has no numbers below 6e-8, so the loss is multiplied by a power of two before the backward, gradients
cross the cut multiplied, and each party divides its own by it before it measures, clips and steps. The trunk
alone decides on the scale, from the outcomes of the step before, and says it with each hidden state: no silo
needs to know how others fared, also where it took no part in a step.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")

MAX_LOSS_SCALE_EXPONENT = 24
"""The loss is multiplied by at most 2^24: more would make fp32 sums of large gradients overflow."""

FIRST_EXPONENT = 16
GROWTH_STEPS = 2000
"""Steps without an overflow after which the scale doubles; both as in torch's own scaler."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_KEY = "loss_scale"


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward in a precision; fp32 costs nothing and changes nothing.

    Args:
        precision: Of the specification.
        device: Where the segment's first layer lies.
    """
    if precision == "fp32":
        return nullcontext()
    # Every weight is used once in a forward, so that torch's cache of casts, which all threads of a
    # process share, would only cost memory.
    return torch.autocast(device.type, dtype=_DTYPES[precision], cache_enabled=False)


@dataclass(frozen=True, slots=True)
class LossScale:
    """The scale of the loss, and how long it has held. Pure: each step's outcome gives the next one.

    Attributes:
        exponent: The loss is multiplied by 2^exponent; from 0 to :data:`MAX_LOSS_SCALE_EXPONENT`.
        num_good: Steps since it last changed.
    """

    exponent: int = FIRST_EXPONENT
    num_good: int = 0

    def after(self, *, finite: bool) -> "LossScale":
        """Return the scale of the next step: halved after an overflow, doubled after many steps without.

        Args:
            finite: Whether every gradient of the step was finite, at every party.
        """
        if not finite:
            return LossScale(max(self.exponent - 1, 0))
        if self.num_good + 1 < GROWTH_STEPS:
            return replace(self, num_good=self.num_good + 1)
        return LossScale(min(self.exponent + 1, MAX_LOSS_SCALE_EXPONENT))

    def state(self) -> dict[str, Tensor]:
        """Return it for a checkpoint."""
        return {_KEY: torch.tensor([self.exponent, self.num_good], dtype=torch.int64)}


def first_loss_scale(spec: JobSpec) -> LossScale | None:
    """Return the scale that a job begins with; None where its precision needs none."""
    return LossScale() if spec.precision == "fp16" else None


def split_loss_scale(tensors: Mapping[str, Tensor]) -> tuple[LossScale | None, dict[str, Tensor]]:
    """Return the scale that a checkpoint holds, if any, and all else of it.

    Raises:
        StorageError: What is there is no scale.
    """
    rest = {name: tensor for name, tensor in tensors.items() if name != _KEY}
    if _KEY not in tensors:
        return None, rest
    values = tensors[_KEY].tolist()
    if (
        tensors[_KEY].shape != (2,)
        or not 0 <= values[0] <= MAX_LOSS_SCALE_EXPONENT
        or not 0 <= values[1] < GROWTH_STEPS
    ):
        raise StorageError(
            f"the checkpoint's scale of the loss is {values}, expected an exponent of 0 to "
            f"{MAX_LOSS_SCALE_EXPONENT} and fewer than {GROWTH_STEPS} steps; retry from an earlier round"
        )
    return LossScale(*values), rest


@cache
def computes_in(precision: Precision, device: torch.device) -> bool:
    """Return whether a device takes a product and an attention forward and backward in a precision.

    Tried once in a thread that then ends, so that a party's process keeps no pool of threads for it.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="precision") as passing:
        return passing.submit(_try, precision, device).result()


def _try(precision: Precision, device: torch.device) -> bool:
    weight = torch.ones(8, 8, device=device, requires_grad=True)
    try:
        with computing_in(precision, device):
            found = functional.linear(torch.ones(1, 2, 4, 8, device=device), weight)
            found = functional.scaled_dot_product_attention(found, found, found, is_causal=True)
        torch.autograd.backward(found.float().sum())
    except RuntimeError:
        return False
    return found.dtype is _DTYPES.get(precision, torch.float32)
