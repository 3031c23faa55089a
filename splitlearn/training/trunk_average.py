"""Averaging the replicas of a trunk at a round's end: a pure function of what each of them contributes.

A contribution is a replica's state after a round (:meth:`splitlearn.training.TrunkTrainer.state`) and the
label tokens that it trained on in it. Parameters are averaged by these tokens, and the optimiser's moments
too where the specification says so. Sums are taken in fp64, in the replicas' order, so that the average has
the same bits wherever it is computed; what no replica moved stays as it is to the last bit.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.tasks import LossSum
from splitlearn.training.updater import OPTIMIZER, PARAMETER

_OWN = "replica/"
_NUM_TOKENS = f"{_OWN}num_tokens"
_BEGUN = f"{_OWN}begun"
_STEP = f"{OPTIMIZER}step/"
"""Steps that an optimiser has taken with a tensor: what it corrects the moments' bias by."""

State = Mapping[str, Tensor]


def contribution(state: State, *, num_tokens: int) -> dict[str, Tensor]:
    """Return what a replica commits of a round.

    Args:
        state: Its trainer's.
        num_tokens: Label tokens of the steps that it took in the round: its weight.
    """
    return {**state, _NUM_TOKENS: torch.tensor(num_tokens, dtype=torch.int64)}


def begun_with(losses: Mapping[str, LossSum], names: Sequence[str]) -> dict[str, Tensor]:
    """Return what a replica's first contribution holds besides, where its silos evaluated before step 1.

    Args:
        losses: Of each of its silos.
        names: The job's roster.
    """
    told = [losses.get(name, LossSum(0.0, 0)) for name in names]
    rows = [[loss.loss_sum, float(loss.num_tokens)] for loss in told]
    return {_BEGUN: torch.tensor(rows, dtype=torch.float64)}


def begun_losses(contributions: Sequence[State], names: Sequence[str]) -> dict[str, LossSum]:
    """Return what the replicas' silos told before step 1, by name; nothing where they were not asked.

    Args:
        contributions: Of every replica.
        names: The job's roster.
    """
    return {
        name: LossSum(loss_sum, int(num_tokens))
        for state in contributions
        if _BEGUN in state
        for name, (loss_sum, num_tokens) in zip(names, state[_BEGUN].tolist(), strict=True)
        if num_tokens
    }


def average_replicas(
    contributions: Sequence[State], *, moments: Literal["averaged", "kept"]
) -> dict[str, Tensor]:
    """Return the tensors that all replicas have in common after a round.

    A replica without a token adds nothing. A moment that a replica has not begun counts as 0, as which it
    begins. Of the steps that bias is corrected by the largest number is taken: so no moment is scaled up
    by more than at any replica.

    Args:
        contributions: Of every replica, in their order.
        moments: Whether the optimiser's moments are averaged, or left out.

    Raises:
        StorageError: The contributions do not hold the same parameters, or one is none.
    """
    weights = [_num_tokens(each) for each in contributions]
    _refuse_differences(contributions)
    if not any(weights):  # nobody moved: all are what they were
        return {key: value for key, value in contributions[0].items() if _is_common(key, moments)}
    parts = [(weight, state) for weight, state in zip(weights, contributions, strict=True) if weight]
    keys = dict.fromkeys(key for _, state in parts for key in state if _is_common(key, moments))
    return {key: _average(key, parts, total=sum(weights)) for key in keys}


def state_of_replica(
    average: State, own: State, *, moments: Literal["averaged", "kept"]
) -> dict[str, Tensor]:
    """Return a replica's state after a round: what all have in common, and what stays its own.

    Args:
        average: As of :func:`average_replicas`.
        own: What the replica contributed.
        moments: As there.
    """
    rest = {
        key: value for key, value in own.items() if not (_is_common(key, moments) or key.startswith(_OWN))
    }
    return {**average, **rest}


def _num_tokens(state: State) -> int:
    if _NUM_TOKENS not in state:
        raise StorageError(
            "a checkpoint of a replica does not say on how many tokens it was trained; resume with the "
            "specification that it was saved under"
        )
    return int(state[_NUM_TOKENS])


def _refuse_differences(contributions: Sequence[State]) -> None:
    shapes = [
        {key: value.shape for key, value in state.items() if key.startswith(PARAMETER)}
        for state in contributions
    ]
    for replica, other in enumerate(shapes[1:], 1):
        wrong = [key for key in shapes[0] | other if shapes[0].get(key) != other.get(key)]
        if wrong:
            raise StorageError(
                f"replica {replica} of the trunk trains other tensors than replica 0, first {wrong[0]!r}; "
                "resume with the specification that their checkpoints were saved under"
            )


def _is_common(key: str, moments: Literal["averaged", "kept"]) -> bool:
    return key.startswith(PARAMETER) or (moments == "averaged" and key.startswith(OPTIMIZER))


def _average(key: str, parts: Sequence[tuple[int, State]], *, total: int) -> Tensor:
    held = [(weight, state[key]) for weight, state in parts if key in state]
    first = held[0][1]
    if key.startswith(_STEP):
        return torch.stack([value for _, value in held]).max(dim=0).values
    mean = torch.zeros(first.shape, dtype=torch.float64)
    for weight, value in held:
        # A token count times an fp32 number is exact in fp64; to divide once, at the end, keeps it so.
        mean += value.to(device="cpu", dtype=torch.float64) * weight
    return (mean / total).to(first.dtype)
