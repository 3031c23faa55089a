"""Whether a trunk fits on the device, before it is loaded; and what would, when it does not."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from splitlearn.control_plane.schemas import DeviceBody
from splitlearn.errors import TrainingError
from splitlearn.planning import (
    Cut,
    DeviceMemory,
    LayerRange,
    Memory,
    ModelFolder,
    PlacementError,
    Role,
    Training,
    estimate_memory,
    lay_trunk,
)
from splitlearn.spec import JobSpec

_GIB = 1 << 30


class TrunkTooLargeError(TrainingError):
    """The trunk needs more memory than the device has; the message says what would fit."""

    code = "out_of_memory"
    public = "the worker's memory does not hold the trunk"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job asks of a worker's memory.

    Attributes:
        spec: The job.
        folder: Its model.
        cut: Where it is cut.
        on_heap: Whether the trunk may lie in the process's own memory, on the processor.
    """

    spec: JobSpec
    folder: ModelFolder
    cut: Cut
    on_heap: bool = True

    def estimate(self, *, batch_size: int | None = None, num_layers: int | None = None) -> Memory:
        """Estimate the trunk's memory, as it is asked for or with a smaller batch or fewer layers."""
        training = Training.of(self.spec, Role.TRUNK, batch_size=batch_size, on_heap=self.on_heap)
        return estimate_memory(self.folder, self._cut(num_layers), Role.TRUNK, training)

    def lay(
        self,
        devices: Sequence[DeviceMemory],
        *,
        batch_size: int | None = None,
        num_layers: int | None = None,
    ) -> tuple[LayerRange, ...]:
        """Lay the trunk's layers over devices, as they are asked for or with a smaller batch or fewer.

        Raises:
            PlacementError: They do not fit.
        """
        training = Training.of(self.spec, Role.TRUNK, batch_size=batch_size, on_heap=self.on_heap)
        return lay_trunk(self.folder, self._cut(num_layers), training, devices)

    def what_fits(self, devices: Sequence[DeviceMemory]) -> str:
        """Return what of this job would fit on devices, as a remedy."""
        for batch_size in _halves(self.spec.batch_size):
            if self._fits(devices, batch_size=batch_size):
                return f"batch_size {batch_size} instead of {self.spec.batch_size} would fit"
        held = len(self.cut.layers(Role.TRUNK))
        for num_layers in range(held - 1, 0, -1):
            if self._fits(devices, batch_size=1, num_layers=num_layers):
                return (
                    f"with batch_size 1 and {num_layers} instead of {held} layers in the trunk it would fit: "
                    "raise bottom_layers or top_layers, or take a worker with more memory"
                )
        return "no batch size helps: take a worker with more memory, or a smaller model"

    def _fits(
        self, devices: Sequence[DeviceMemory], *, batch_size: int, num_layers: int | None = None
    ) -> bool:
        try:
            self.lay(devices, batch_size=batch_size, num_layers=num_layers)
        except PlacementError:
            return False
        return True

    def _cut(self, num_layers: int | None) -> Cut:
        """Return a cut whose trunk has so few layers; where the others go does not matter here."""
        if num_layers is None:
            return self.cut
        bottom = self.cut.bottom_layers + len(self.cut.layers(Role.TRUNK)) - num_layers
        return Cut(bottom_layers=bottom, top_layers=self.cut.top_layers, num_layers=self.cut.num_layers)


def refuse_too_large(demand: Demand, devices: Sequence[DeviceBody]) -> None:
    """Refuse a trunk that certainly does not fit.

    Args:
        demand: What is asked for.
        devices: All of this worker.

    Raises:
        TrunkTooLargeError: Weights, gradients and optimiser alone are larger than the devices' memory.
    """
    # Activations are an estimate: a job that may fit is tried, and told how far it came.
    certain = demand.estimate().lasting
    total = sum(device.total_memory_bytes for device in devices)
    if certain > total:
        raise TrunkTooLargeError(
            f"the trunk needs {_size(certain)} for weights, gradients and optimiser, {_names(devices)} has "
            f"{_size(total)}; {demand.what_fits(whole_of(devices))}"
        )


def explain_out_of_memory(demand: Demand, devices: Sequence[DeviceBody]) -> TrunkTooLargeError:
    """Return the error for an allocation that failed."""
    needed = demand.estimate()
    total = sum(device.total_memory_bytes for device in devices)
    return TrunkTooLargeError(
        f"{_names(devices)} ran out of memory: the trunk needs about {_size(needed.total)} "
        f"({_size(needed.activations)} of it for activations), the device has "
        f"{_size(total)}; {demand.what_fits(whole_of(devices))}"
    )


def lay_over(demand: Demand, free: Sequence[DeviceMemory]) -> tuple[LayerRange, ...]:
    """Lay a trunk over devices by what is free of them now.

    Raises:
        TrunkTooLargeError: It does not fit; says which layers, by how much, and what would fit.
    """
    try:
        return demand.lay(free)
    except PlacementError as error:
        raise TrunkTooLargeError(f"{error.message}; {demand.what_fits(free)}") from error


def whole_of(devices: Sequence[DeviceBody]) -> list[DeviceMemory]:
    """Return devices as if nothing of them were taken."""
    return [DeviceMemory(device.id, device.total_memory_bytes) for device in devices]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "not enough memory" in words)


def _halves(number: int) -> list[int]:
    found = []
    while number > 1:
        number //= 2
        found.append(number)
    return found


def _names(devices: Sequence[DeviceBody]) -> str:
    return " with ".join(device.name for device in devices)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
