"""Keeps trunks on the devices, as far as there is room, so that a job's next attempt need not load it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from splitlearn.partition import Spread, TrunkSegment, load_trunk, result_parameters
from splitlearn.planning import Cut, DeviceMemory, LayerRange, PlacementError
from splitlearn.spec import FullAdapter, LoraAdapter
from worker.devices import free_memory
from worker.memory import Demand, lay_over

FreeMemory = Callable[[Sequence[torch.device]], Sequence[DeviceMemory]]
_log = structlog.get_logger("worker.trunk")


@dataclass(frozen=True, slots=True)
class TrunkKey:
    """What a loaded trunk depends on. The model's digest stands for every weight of it."""

    model: str
    cut: Cut
    adapter: FullAdapter | LoraAdapter
    seed: int


@dataclass(frozen=True, slots=True)
class _Loaded:
    trunk: TrunkSegment
    initial: dict[str, Tensor]


class TrunkCache:
    """Trunks with adapters, and their initial values; the one that was used longest ago makes room first.

    A trunk that is trained whole is loaded anew each time, for its first values are gone.

    Args:
        devices: Where trunks are loaded to; a trunk that is too large for one is laid over several.
        free_memory: Tells what is free of them.
    """

    def __init__(self, devices: Sequence[torch.device], *, free_memory: FreeMemory = free_memory) -> None:
        self._devices, self._free_memory = tuple(devices), free_memory
        self._loaded: OrderedDict[TrunkKey, _Loaded] = OrderedDict()

    def __len__(self) -> int:
        """How many trunks are loaded."""
        return len(self._loaded)

    def get(self, demand: Demand) -> TrunkSegment:
        """Return the job's trunk as it is before the first step.

        Raises:
            TrunkTooLargeError: It does not fit on several devices; on a single one it is tried.
        """
        spec = demand.spec
        key = TrunkKey(spec.model, demand.cut, spec.adapter, spec.seed)
        known = self._loaded.get(key)
        if known is not None:
            self._loaded.move_to_end(key)
            _reset(known)
            return known.trunk
        spread = self._make_room(demand)
        trunk = load_trunk(demand.folder, demand.cut, adapter=spec.adapter, seed=spec.seed, device=spread)
        if isinstance(spec.adapter, LoraAdapter):
            # Frozen halves of adapters too: a job that begins at an earlier result replaces them.
            initial = {name: tensor.detach().clone() for name, tensor in result_parameters(trunk).items()}
            self._loaded[key] = _Loaded(trunk, initial)
        return trunk

    def clear(self) -> None:
        """Let go of every trunk."""
        self._loaded.clear()
        self._free_memory(self._devices)

    def _make_room(self, demand: Demand) -> Spread:
        """Let go of trunks until the wanted one fits; say where its layers go."""
        while self._loaded:
            try:
                return _spread(demand.lay(self._free_memory(self._devices)))
            except PlacementError:
                self._loaded.popitem(last=False)
        if len(self._devices) == 1:
            # What it needs is an estimate: a job that may fit is tried.
            return Spread.on(self._devices[0])
        ranges = lay_over(demand, self._free_memory(self._devices))
        if len(ranges) > 1:
            places = {part.device: f"{part.first_layer}-{part.last_layer}" for part in ranges}
            _log.info("trunk_laid", **places)
        return _spread(ranges)


def _spread(ranges: Sequence[LayerRange]) -> Spread:
    return Spread.of((part.layers, part.device) for part in ranges)


def _reset(loaded: _Loaded) -> None:
    with torch.no_grad():
        for name, tensor in result_parameters(loaded.trunk).items():
            tensor.copy_(loaded.initial[name])
            tensor.grad = None
