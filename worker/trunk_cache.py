"""Keeps the last trunk on the device, so that the next attempt of the job need not load it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from splitlearn.partition import TrunkSegment, load_trunk
from splitlearn.planning import Cut, ModelFolder
from splitlearn.spec import FullAdapter, JobSpec, LoraAdapter


@dataclass(frozen=True, slots=True)
class TrunkKey:
    """What a loaded trunk depends on. The model's digest stands for every weight of it."""

    model: str
    cut: Cut
    adapter: FullAdapter | LoraAdapter
    seed: int
    device: str


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: TrunkKey
    trunk: TrunkSegment
    initial: dict[str, Tensor]


class TrunkCache:
    """One trunk with adapters, and their initial values. A trunk that is trained whole is loaded anew.

    Args:
        device: Where trunks are loaded to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._loaded: _Loaded | None = None

    def get(self, spec: JobSpec, folder: ModelFolder, cut: Cut) -> TrunkSegment:
        """Return the job's trunk as it is before the first step."""
        key = TrunkKey(spec.model, cut, spec.adapter, spec.seed, str(self._device))
        if self._loaded is not None and self._loaded.key == key:
            _reset(self._loaded)
            return self._loaded.trunk
        self.clear()
        trunk = load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed, device=self._device)
        if isinstance(spec.adapter, LoraAdapter):
            initial = {name: tensor.detach().clone() for name, tensor in trunk.named_trainable()}
            self._loaded = _Loaded(key, trunk, initial)
        return trunk

    def clear(self) -> None:
        """Let go of the trunk."""
        self._loaded = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _reset(loaded: _Loaded) -> None:
    with torch.no_grad():
        for name, tensor in loaded.trunk.named_trainable():
            tensor.copy_(loaded.initial[name])
            tensor.grad = None
