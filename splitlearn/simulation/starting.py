"""Beginning a run in one process at the result of an earlier one."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from splitlearn.partition import (
    Cut,
    ModelFolder,
    StartError,
    StartingPoint,
    TrunkSegment,
    find_any_result,
    find_result,
    load_trunk,
)
from splitlearn.spec import JobSpec


def start_of_silo(spec: JobSpec, folder: ModelFolder, silo: str) -> StartingPoint | None:
    """Return what a silo begins at; None for the base model: it took no part in the earlier run.

    Raises:
        StartError: There is no such result, or it does not fit.
    """
    if spec.start_from is None:
        return None
    result = find_result(Path(spec.start_from), silo)
    return StartingPoint.open(result, base=folder, adapter=spec.adapter) if result else None


def load_started_trunk(spec: JobSpec, folder: ModelFolder, cut: Cut) -> TrunkSegment:
    """Load the trunk as it is before the first step.

    Raises:
        StartError: There is no earlier result, it does not fit, or holds nothing of the trunk.
    """
    if spec.start_from is None:
        return load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed)
    result = find_any_result(Path(spec.start_from))
    start = StartingPoint.open(result, base=folder, adapter=spec.adapter)
    trunk = load_trunk(start.folder, cut, adapter=spec.adapter, seed=spec.seed)
    if not start.begin(trunk):
        raise StartError(f"start_from: {result} holds nothing of the trunk; begin at another result")
    return trunk


def refuse_unequal_blocks(spec: JobSpec, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse to average blocks that differ at the beginning: the sum is of what they change since.

    Args:
        spec: The job.
        states: What each silo trains, by silo, in the roster's order.

    Raises:
        StartError: Two silos begin with other blocks.
    """
    if spec.silo_blocks != "averaged" or spec.start_from is None:
        return
    (first, expected), *others = states.items()
    for name, state in others:
        if any(not torch.equal(value, state[key]) for key, value in expected.items()):
            raise StartError(
                f"start_from: the blocks of silo {name!r} differ from those of {first!r} at the beginning, "
                "and only equal ones can be averaged; begin at a run with averaged blocks that all "
                "silos took part in"
            )
