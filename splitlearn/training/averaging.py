"""A silo's blocks between two averages: what they changed, and over how many tokens."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.training.optimizer import NamedParameters

_BASE = "average/base/"
_NUM_TOKENS = "average/num_tokens"


class AveragedBlocks:
    """The trained parameters of a silo's blocks, and what they were when all silos had the same.

    Changes are averaged, not values: they are small, so that fixed point holds them finely, and what no silo
    trained stays as it is to the last bit.

    Args:
        parameters: By the whole model's names, in its order; the same at every silo now.

    Attributes:
        num_tokens: Label tokens of the steps taken since the last average: the silo's weight in the next.
    """

    def __init__(self, parameters: NamedParameters) -> None:
        self._named = tuple(parameters)
        self._base = {name: parameter.detach().clone() for name, parameter in self._named}
        self.num_tokens = 0
        self._last_tokens = 0

    @property
    def num_words(self) -> int:
        """Numbers that are averaged."""
        return sum(parameter.numel() for _, parameter in self._named)

    def count(self, num_tokens: int) -> None:
        """Count the label tokens of a step that was finished; 0 where it was skipped."""
        self.num_tokens += num_tokens
        self._last_tokens = num_tokens

    def uncount(self) -> None:
        """Take the last count back: its step was undone."""
        self.count(-self._last_tokens)
        self._last_tokens = 0

    def changes(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Return what each tensor changed since the last average, fp32 on the CPU, in the model's order."""
        return [
            (name, (parameter.detach() - self._base[name]).to(device="cpu", dtype=torch.float32).numpy())
            for name, parameter in self._named
        ]

    def take(self, mean: NDArray[np.float64]) -> None:
        """Move every parameter to where it was at the last average plus the mean of all silos' changes.

        Args:
            mean: Of all tensors, one after another.
        """
        assert mean.size == self.num_words, f"{mean.size} means for {self.num_words} numbers"
        begin = 0
        with torch.no_grad():
            for name, parameter in self._named:
                end = begin + parameter.numel()
                base = self._base[name]
                change = torch.from_numpy(mean[begin:end]).to(base.device).reshape(base.shape)
                base.copy_(base.double() + change)  # rounded to fp32 once
                parameter.copy_(base)
                begin = end
        self.num_tokens = self._last_tokens = 0

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold besides the parameters; nothing right after an average."""
        if self.num_tokens == 0 and self._is_at_base():
            return {}
        return {
            **{f"{_BASE}{name}": value for name, value in self._base.items()},
            _NUM_TOKENS: torch.tensor(self.num_tokens, dtype=torch.int64),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned; call it once the parameters are loaded.

        Raises:
            StorageError: The checkpoint holds the state of other tensors.
        """
        bases = {key.removeprefix(_BASE): value for key, value in tensors.items() if key.startswith(_BASE)}
        shapes = {name: parameter.shape for name, parameter in self._named}
        if bases and {name: value.shape for name, value in bases.items()} != shapes:
            raise StorageError(
                "the checkpoint holds the last average of other tensors than those trained here; resume with "
                "the specification that it was saved under"
            )
        for name, parameter in self._named:
            self._base[name].copy_(bases.get(name, parameter.detach()))
        self.num_tokens = int(tensors[_NUM_TOKENS]) if _NUM_TOKENS in tensors else 0
        self._last_tokens = 0

    def _is_at_base(self) -> bool:
        return all(torch.equal(parameter, self._base[name]) for name, parameter in self._named)


def without_average(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors without those of :class:`AveragedBlocks`."""
    return {key: value for key, value in tensors.items() if not (key.startswith(_BASE) or key == _NUM_TOKENS)}
