"""Whether a trunk fits on the device, before it is loaded; and what would, when it does not."""

from dataclasses import dataclass

import torch

from splitlearn.control_plane.schemas import DeviceBody
from splitlearn.errors import TrainingError
from splitlearn.planning import Cut, ModelFolder, Role
from splitlearn.planning.estimates import Memory, estimate_memory
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
    """

    spec: JobSpec
    folder: ModelFolder
    cut: Cut

    def estimate(self, *, batch_size: int | None = None, num_layers: int | None = None) -> Memory:
        """Estimate the trunk's memory, as it is asked for or with a smaller batch or fewer layers."""
        spec = self.spec
        at_once = 1 if spec.schedule == "serial" else len(spec.silos)
        return estimate_memory(
            self.folder,
            self.cut if num_layers is None else self._narrower(num_layers),
            Role.TRUNK,
            adapter=spec.adapter,
            optimizer=spec.optimizer,
            batch_tokens=(batch_size or spec.batch_size) * spec.max_tokens * at_once,
        )

    def what_fits(self, free_bytes: int) -> str:
        """Return what of this job would fit in so much memory, as a remedy."""
        for batch_size in _halves(self.spec.batch_size):
            if self.estimate(batch_size=batch_size).total <= free_bytes:
                return f"batch_size {batch_size} instead of {self.spec.batch_size} would fit"
        held = len(self.cut.layers(Role.TRUNK))
        for num_layers in range(held - 1, 0, -1):
            if self.estimate(batch_size=1, num_layers=num_layers).total <= free_bytes:
                return (
                    f"with batch_size 1 and {num_layers} instead of {held} layers in the trunk it would fit: "
                    "raise bottom_layers or top_layers, or take a worker with more memory"
                )
        return "no batch size helps: take a worker with more memory, or a smaller model"

    def _narrower(self, num_layers: int) -> Cut:
        """Return a cut whose trunk has so few layers; where the others go does not matter here."""
        bottom = self.cut.bottom_layers + len(self.cut.layers(Role.TRUNK)) - num_layers
        return Cut(bottom_layers=bottom, top_layers=self.cut.top_layers, num_layers=self.cut.num_layers)


def refuse_too_large(demand: Demand, device: DeviceBody) -> None:
    """Refuse a trunk that certainly does not fit.

    Args:
        demand: What is asked for.
        device: As it is now, with nothing of the job loaded.

    Raises:
        TrunkTooLargeError: Weights, gradients and optimiser alone are larger than the device's memory.
    """
    needed = demand.estimate()
    # Activations are an estimate: a job that may fit is tried, and told how far it came.
    certain = needed.total - needed.activations
    if certain > device.total_memory_bytes:
        raise TrunkTooLargeError(
            f"the trunk needs {_size(certain)} for weights, gradients and optimiser, {device.name} has "
            f"{_size(device.total_memory_bytes)}; {demand.what_fits(device.total_memory_bytes)}"
        )


def explain_out_of_memory(demand: Demand, device: DeviceBody) -> TrunkTooLargeError:
    """Return the error for an allocation that failed."""
    needed = demand.estimate()
    return TrunkTooLargeError(
        f"{device.name} ran out of memory: the trunk needs about {_size(needed.total)} "
        f"({_size(needed.activations)} of it for activations), the device has "
        f"{_size(device.total_memory_bytes)}; {demand.what_fits(device.total_memory_bytes)}"
    )


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


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
