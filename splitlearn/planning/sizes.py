"""How large the segments of a cut are, and what LoRA would train in them, from headers alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from splitlearn.families import Family
from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.headers import TensorInfo
from splitlearn.spec import LoraAdapter

_MATRIX_AXES = 2


@dataclass(frozen=True, slots=True)
class Size:
    """A group of tensors.

    Attributes:
        num_tensors: Tensors on disk.
        num_parameters: Their elements.
        num_bytes: Their size on disk, in the type that they are stored in.
    """

    num_tensors: int
    num_parameters: int
    num_bytes: int

    @classmethod
    def of(cls, tensors: Iterable[TensorInfo]) -> Self:
        """Add tensors up."""
        found = list(tensors)
        return cls(
            len(found), sum(info.num_elements for info in found), sum(info.num_bytes for info in found)
        )


def role_of(parameter: str, *, family: Family, cut: Cut) -> Role | None:
    """Return the segment that a parameter belongs to; None for a tensor that the family does not use.

    A tied embedding is the bottom's.
    """
    layer = family.layer_of(parameter)
    if layer is not None:
        return next((role for role in Role if layer in cut.layers(role)), None)
    if family.is_before_layers(parameter):
        return Role.BOTTOM
    return Role.TOP if family.is_after_layers(parameter) else None


def tensors_by_role(folder: ModelFolder, cut: Cut) -> dict[Role, list[TensorInfo]]:
    """Sort a model's tensors on disk by the segment that loads them."""
    sorted_: dict[Role, list[TensorInfo]] = {role: [] for role in Role}
    for info in folder.tensors():
        role = role_of(folder.parameter_of(info.name), family=folder.family, cut=cut)
        if role is not None:
            sorted_[role].append(info)
    return sorted_


def segment_sizes(folder: ModelFolder, cut: Cut) -> dict[Role, Size]:
    """Return the size of each segment of a cut. A tied embedding counts once, in the bottom."""
    return {role: Size.of(tensors) for role, tensors in tensors_by_role(folder, cut).items()}


def layer_sizes(folder: ModelFolder) -> list[Size]:
    """Return the size of each layer, in order."""
    return [Size.of(tensors) for tensors in _tensors_of_layers(folder)]


def _tensors_of_layers(folder: ModelFolder) -> list[list[TensorInfo]]:
    layers: list[list[TensorInfo]] = [[] for _ in range(folder.num_layers)]
    for info in folder.tensors():
        layer = folder.family.layer_of(folder.parameter_of(info.name))
        if layer is not None and layer < folder.num_layers:
            layers[layer].append(info)
    return layers


def lora_parameters(folder: ModelFolder, cut: Cut, adapter: LoraAdapter) -> dict[Role, int]:
    """Return how many parameters LoRA trains in each segment: r x (inputs + outputs) of each target."""
    return {
        role: _lora_parameters(folder, tensors, adapter)
        for role, tensors in tensors_by_role(folder, cut).items()
    }


def lora_parameters_of_layers(folder: ModelFolder, adapter: LoraAdapter) -> list[int]:
    """Return how many parameters LoRA trains in each layer, in order."""
    return [_lora_parameters(folder, tensors, adapter) for tensors in _tensors_of_layers(folder)]


def unknown_targets(folder: ModelFolder, adapter: LoraAdapter) -> tuple[list[str], list[str]]:
    """Return those modules that LoRA is to adapt and no layer has, and the linear ones that layers have.

    The former as the job names them, the latter by the last part of their names, each once.
    """
    modules = {
        folder.parameter_of(info.name).removesuffix(".weight")
        for tensors in _tensors_of_layers(folder)
        for info in tensors
        if len(info.shape) == _MATRIX_AXES and info.name.endswith(".weight")
    }
    unknown = [
        target
        for target in adapter.targets or ()
        if not any(module == target or module.endswith("." + target) for module in modules)
    ]
    return unknown, sorted({module.rpartition(".")[2] for module in modules})


def _lora_parameters(folder: ModelFolder, tensors: Iterable[TensorInfo], adapter: LoraAdapter) -> int:
    targets = adapter.targets or folder.family.lora_targets
    return sum(adapter.r * sum(info.shape) for info in tensors if _is_target(folder, info, targets))


def _is_target(folder: ModelFolder, info: TensorInfo, targets: tuple[str, ...]) -> bool:
    module, _, kind = folder.parameter_of(info.name).rpartition(".")
    named = any(module == target or module.endswith("." + target) for target in targets)
    return kind == "weight" and len(info.shape) == _MATRIX_AXES and named
