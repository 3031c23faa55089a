"""Where training begins, other than at the base model: at what an earlier job came to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from splitlearn.errors import ModelError
from splitlearn.families import Family
from splitlearn.partition.adapters import Adapter
from splitlearn.partition.loading import SiloBlocks
from splitlearn.partition.segments import Segment, load_segment_state
from splitlearn.planning import ModelFolder
from splitlearn.spec import LoraAdapter

ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
_MAX_CONFIG_BYTES = 1 << 20
_PEFT_PREFIX = "base_model.model."
_OF_THE_FILES = frozenset({"dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures"})
"""Of a model's configuration: what may differ without another model being meant."""
_MAX_NAMED = 3


class StartError(ModelError):
    """An earlier result does not fit the job that is to begin at it."""

    code = "start_mismatch"
    public = "the earlier result does not fit this job"


@dataclass(frozen=True)
class StartingPoint:
    """An earlier result: a PEFT adapter, or a whole model.

    Attributes:
        result: Its folder.
        folder: What segments are loaded from: the base model, or the result where it is a whole model.
    """

    result: Path
    folder: ModelFolder
    _adapter: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def open(cls, result: Path, *, base: ModelFolder, adapter: Adapter) -> Self:
        """Look at a result.

        Args:
            result: Its folder.
            base: The job's model.
            adapter: What the job trains.

        Raises:
            StartError: The result is of another kind, shape or model.
            ModelFilesError: Its files cannot be read.
        """
        is_adapter = (result / ADAPTER_CONFIG).is_file()
        if is_adapter is not isinstance(adapter, LoraAdapter):
            held, trained = ("an adapter", "every weight") if is_adapter else ("no adapter", "an adapter")
            raise StartError(
                f"start_from: {result} holds {held}, the job trains {trained} (adapter.kind "
                f"{adapter.kind!r}); begin at a result of the same kind"
            )
        if isinstance(adapter, LoraAdapter):
            _refuse_other_shape(result, adapter)
            return cls(result, base, _adapter_tensors(result))
        whole = ModelFolder.open(result)
        _refuse_other_model(whole, base)
        return cls(result, whole, {})

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole model: what is loaded from its folder has begun there."""
        return not self._adapter

    def begin(self, segment: Segment) -> bool:
        """Put the earlier adapter into a segment that was loaded from :attr:`folder`.

        Returns:
            Whether the result holds anything of the segment; else it begins at the base model.

        Raises:
            StorageError: What it holds of the segment are other tensors than the segment's.
        """
        if self.is_whole:
            return True
        own = self.held_of(segment)
        if own:
            load_segment_state(segment, own)
        return bool(own)

    def held_of(self, segment: Segment) -> dict[str, Tensor]:
        """Return the adapter's tensors that lie in a segment's layers."""
        layers, family = segment.origin.cut.layers(segment.origin.role), segment.origin.family
        return {name: value for name, value in self._adapter.items() if _layer_of(name, family) in layers}

    def begin_blocks(self, blocks: SiloBlocks, *, are_frozen: bool) -> None:
        """Put the earlier adapter into a silo's blocks, loaded from :attr:`folder`.

        Args:
            blocks: The silo's.
            are_frozen: Whether the job keeps them as the base model has them.

        Raises:
            StartError: The result holds an adapter of blocks that would stay without.
            StorageError: It holds other tensors than those of the blocks.
        """
        for segment in (blocks.bottom, blocks.top):
            if not are_frozen:
                self.begin(segment)
            elif self.held_of(segment):
                raise StartError(
                    f"start_from: {self.result} holds a trained adapter of the silo's {segment.origin.role} "
                    "block, which this job keeps frozen as it is in the base model; use silo_blocks 'local'"
                )

    def begin_whole(self, model: Any) -> None:
        """Put the earlier adapter into a whole model with one like it; a model that was never cut.

        Raises:
            StartError: The model has no such tensor.
        """
        parameters = dict(model.named_parameters())
        for name, value in self._adapter.items():
            if name not in parameters or parameters[name].shape != value.shape:
                raise StartError(f"start_from: the model has no {name!r} of shape {list(value.shape)}")
            parameters[name].data.copy_(value)


def find_result(start: Path, silo: str) -> Path | None:
    """Return what a silo begins at, out of the folder of an earlier run, or of one result for all.

    Args:
        start: Either.
        silo: The silo's name.

    Returns:
        The result's folder; None where the silo took no part in the run.

    Raises:
        StartError: The folder is neither.
    """
    if any((start / name).is_file() for name in (ADAPTER_CONFIG, "config.json")):
        return start
    if not (start / "silos").is_dir():
        raise StartError(
            f"start_from: {start} is neither the folder of an earlier run nor that of a result; give one "
            "that holds silos/, or one that plain transformers or PEFT loads"
        )
    own = start / "silos" / silo / "result"
    return own if own.is_dir() else None


def find_any_result(start: Path) -> Path:
    """Return a result that holds the earlier trunk, which is the same in every silo's.

    Raises:
        StartError: The run has none.
    """
    found = find_result(start, "") if not (start / "silos").is_dir() else None
    results = [found] if found else sorted((start / "silos").glob("*/result"))
    if not results:
        raise StartError(f"start_from: the run in {start} has no result; let it end first")
    return results[0]


def _layer_of(name: str, family: Family) -> int | None:
    return family.layer_of(name.removeprefix(_PEFT_PREFIX))


def _adapter_tensors(result: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(result / ADAPTER_FILE)
    except (OSError, SafetensorError) as error:
        raise StartError(f"start_from: {result / ADAPTER_FILE} cannot be read ({error})") from error
    # PEFT leaves the adapter's name out on disk.
    return {
        name.replace(".lora_A.weight", ".lora_A.default.weight").replace(
            ".lora_B.weight", ".lora_B.default.weight"
        ): value
        for name, value in tensors.items()
    }


def _refuse_other_shape(result: Path, adapter: LoraAdapter) -> None:
    path = result / ADAPTER_CONFIG
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
        found = {"r": int(config["r"]), "alpha": float(config["lora_alpha"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"start_from: {path} cannot be read as PEFT's configuration of LoRA") from error
    for name, value in found.items():
        if value != getattr(adapter, name):
            raise StartError(
                f"start_from: the adapter in {result} has {name} {value:g}, the job's has "
                f"{getattr(adapter, name):g} (adapter.{name}); give the same"
            )


def _refuse_other_model(whole: ModelFolder, base: ModelFolder) -> None:
    names = (whole.config.keys() | base.config.keys()) - _OF_THE_FILES
    different = sorted(name for name in names if whole.config.get(name) != base.config.get(name))
    if different:
        told = ", ".join(
            f"{name} {whole.config.get(name)!r} instead of {base.config.get(name)!r}"
            for name in different[:_MAX_NAMED]
        )
        raise StartError(
            f"start_from: the model in {whole.path} is another than {base.path}: {told}; begin at a result "
            "of the job's own model"
        )
