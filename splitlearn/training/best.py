"""The best round so far: which it is, and what a party's blocks were after it.

What a checkpoint holds of it makes the checkpoint whole by itself: a party that goes back to a round goes
back to what was best then, wherever its earlier checkpoints are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.spec import EvaluationSpec
from splitlearn.tasks import LossSum, total_loss
from splitlearn.training.optimizer import NamedParameters

_PREFIX = "best/"
_ROUND = "best/round"
_VALUE = "best/parameter/"
_STANDING = "standing"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the evaluations so far say. Pure: each evaluation gives the next one.

    Two evaluations are compared over the silos that told their loss at both: where a silo was lost in
    between, the others' numbers alone say whether training made anything better.

    Attributes:
        best_round: The evaluated round with the lowest loss, 0 for what the job began with; None before the
            first that is known.
        best_losses: What each silo told after it; those of no tokens are left out.
        num_without: Evaluations since, none of which improved it.
    """

    best_round: int | None = None
    best_losses: Mapping[str, LossSum] = field(default_factory=dict)
    num_without: int = 0

    def after(self, round_number: int, losses: Mapping[str, LossSum], *, min_delta: float) -> "Standing":
        """Return what is known after another evaluation.

        Args:
            round_number: The round that was evaluated.
            losses: Of each silo that is there, by name; one of no tokens is kept to itself. Where all are,
                nothing is learned from it.
            min_delta: The loss is better where it is lower by more than this, in nats per token.
        """
        told = {name: loss for name, loss in losses.items() if loss.num_tokens}
        if not told:
            return self
        alike = told.keys() & self.best_losses.keys()
        loss = total_loss(told[name] for name in alike or told).mean
        best = total_loss(self.best_losses[name] for name in alike).mean if alike else math.inf
        if loss < best - min_delta:  # never where the loss is not a number
            return Standing(round_number, told)
        return replace(self, num_without=self.num_without + 1)

    def ends_the_job(self, spec: EvaluationSpec) -> bool:
        """Return whether so many evaluations in a row were in vain that the job is over."""
        return 0 < spec.patience_evaluations <= self.num_without

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return it for a checkpoint; nothing before the first evaluation.

        Args:
            names: The job's roster.
        """
        if self == Standing():
            return {}
        none = LossSum(0.0, 0)
        losses = [self.best_losses.get(name, none) for name in names]
        rows = [
            [float(self.best_round or 0), float(self.num_without)],
            *([loss.loss_sum, float(loss.num_tokens)] for loss in losses),
        ]
        return {_STANDING: torch.tensor(rows, dtype=torch.float64)}


def split_standing(tensors: Mapping[str, Tensor], names: Sequence[str]) -> tuple[Standing, dict[str, Tensor]]:
    """Return what a checkpoint says of the evaluations, and all else of it.

    Args:
        tensors: The checkpoint's.
        names: The job's roster.

    Raises:
        StorageError: What is there is none of it.
    """
    rest = {name: tensor for name, tensor in tensors.items() if name != _STANDING}
    if _STANDING not in tensors:
        return Standing(), rest
    record = tensors[_STANDING]
    if record.shape != (1 + len(names), 2) or bool((record[0] < 0).any()):
        raise StorageError(
            f"the checkpoint's record of the evaluations is {record.tolist()}, expected a round and a count, "
            f"and a loss with its tokens for each of {len(names)} silos; retry from an earlier round"
        )
    (best_round, num_without), *told = record.tolist()
    losses = {
        name: LossSum(loss_sum, int(num_tokens))
        for name, (loss_sum, num_tokens) in zip(names, told, strict=True)
        if num_tokens
    }
    return Standing(int(best_round) if losses else None, losses, int(num_without)), rest


class BestBlocks:
    """Copies, in the processor's memory, of a party's trained tensors after the best round so far.

    Args:
        parameters: By the whole model's names, in its order. None at all is legal: nothing is copied then.
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._named = tuple(parameters)
        self._values: dict[str, Tensor] = {}
        self._round: int | None = None

    def keep(self, round_number: int) -> None:
        """Take what the parameters are now for the best."""
        self._round = round_number
        self._values = {name: parameter.detach().cpu().clone() for name, parameter in self._named}

    def restore(self) -> None:
        """Put the best into the parameters; where nothing was kept they stay as they are."""
        with torch.no_grad():
            for name, parameter in self._named:
                if self._round is not None:
                    parameter.copy_(self._values[name])

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold besides the parameters; where these are the best, no copies."""
        if self._round is None or not self._named:
            return {}
        number = {_ROUND: torch.tensor(self._round, dtype=torch.int64)}
        if all(torch.equal(parameter.detach().cpu(), self._values[name]) for name, parameter in self._named):
            return number
        return {**number, **{f"{_VALUE}{name}": value for name, value in self._values.items()}}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned; call it once the parameters are loaded.

        Raises:
            StorageError: The checkpoint holds copies of other tensors.
        """
        values = {
            key.removeprefix(_VALUE): tensor for key, tensor in tensors.items() if key.startswith(_VALUE)
        }
        shapes = {name: parameter.shape for name, parameter in self._named}
        if values and {name: tensor.shape for name, tensor in values.items()} != shapes:
            raise StorageError(
                "the checkpoint holds the best round of other tensors than those trained here; resume with "
                "the specification that it was saved under"
            )
        self._round = int(tensors[_ROUND]) if _ROUND in tensors else None
        current = {name: parameter.detach().cpu().clone() for name, parameter in self._named}
        self._values = {} if self._round is None else (values or current)


def without_best(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors without those of :class:`BestBlocks`."""
    return {key: value for key, value in tensors.items() if not key.startswith(_PREFIX)}
