"""Mixture-of-experts tensors: one per expert on disk, one per layer in the library.

The library joins an expert's gate above its up projection and stacks the experts:
``gate_up_proj`` is [experts, 2 x inner, hidden], ``down_proj`` is [experts, hidden, inner].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_PARTS = ("gate_proj", "up_proj", "down_proj")


def is_expert(name: str) -> bool:
    """Whether a tensor on disk is one expert's."""
    return ".experts." in name and name.rpartition(".experts.")[2].partition(".")[0].isdecimal()


def join(names: Sequence[str], read: Callable[[str], Tensor]) -> Tensor:
    """Read the tensors of one layer's experts and join them.

    Args:
        names: Their names on disk, in any order; either all gates and ups, or all downs.
        read: Reads one tensor by name.

    Returns:
        [experts, out, in].
    """
    by_part: dict[str, dict[int, str]] = {}
    for name in names:
        number, part = _number_and_part(name)
        by_part.setdefault(part, {})[number] = name
    stacked = [
        torch.stack([read(by_part[part][number]) for number in sorted(by_part[part])])
        for part in _PARTS
        if part in by_part
    ]
    return torch.cat(stacked, dim=1) if len(stacked) > 1 else stacked[0]


def part_of(joined: Tensor, name: str) -> Tensor:
    """Return, as a copy, what one tensor on disk holds of a joined tensor: the reverse of :func:`join`."""
    number, part = _number_and_part(name)
    expert = joined[number]
    if part == "down_proj":
        return expert.clone()
    inner = expert.shape[0] // 2
    return (expert[:inner] if part == "gate_proj" else expert[inner:]).clone()


def _number_and_part(name: str) -> tuple[int, str]:
    number, part, _weight = name.rpartition(".experts.")[2].split(".")
    return int(number), part
