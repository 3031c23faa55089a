"""Puts the parties' parts together: a standard PEFT adapter, or a standard Hugging Face model folder."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from splitlearn.errors import ModelError
from splitlearn.partition import experts
from splitlearn.partition.adapters import Adapter, linear_modules, lora_config, resolve_targets, targeted
from splitlearn.partition.reading import TensorReader
from splitlearn.partition.skeleton import build_skeleton
from splitlearn.partition.whole_folder import whole_folder
from splitlearn.planning import INDEX_FILE, ModelFolder
from splitlearn.spec import LoraAdapter

SMALL_FILES_BYTES = 1 << 20  # room for configuration files beside the tensors
COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files of a model folder, besides weights and configuration, that a result is not complete without."""

_PEFT_PREFIX = "base_model.model."


class PartsError(ModelError):
    """The parts do not make up a result: a tensor is unknown, doubled, or of a wrong shape."""

    code = "model_parts"


def export_result(
    folder: ModelFolder,
    parts: Iterable[Mapping[str, Tensor]],
    adapter: Adapter,
    out_dir: Path,
    *,
    base_name: str | None = None,
) -> None:
    """Write the union of the parties' trained tensors as what plain transformers and PEFT load.

    Args:
        folder: The base model. What no part holds stays as it is there; tensor files that the parts make
            up for may be absent, as they are at a silo.
        parts: Trained tensors by whole-model name, as from ``segment_state``; disjoint.
        adapter: ``lora`` writes a PEFT adapter folder, ``full`` a model folder with tokenizer.
        out_dir: Where to; it must not exist, or be empty. It appears whole or not at all.
        base_name: What a PEFT adapter calls its base model; by default the folder's path.

    Raises:
        PartsError: A tensor is unknown to the model, doubled, missing, or of a wrong shape.
        StorageError: The folder cannot be written; the message names path and space needed.
    """
    union = _union(parts)
    if isinstance(adapter, LoraAdapter):
        _export_lora(folder, union, adapter, out_dir, base_name=base_name or str(folder.path.resolve()))
    else:
        _export_full(folder, union, out_dir)


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer and generation settings of a model folder, as far as it has them."""
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _union(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    union: dict[str, Tensor] = {}
    for part in parts:
        doubled = sorted(union.keys() & part.keys())
        if doubled:
            raise PartsError(f"two parts hold {doubled[0]!r}; give each party's part once")
        union.update(part)
    return union


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _export_lora(
    folder: ModelFolder, union: dict[str, Tensor], adapter: LoraAdapter, out_dir: Path, *, base_name: str
) -> None:
    skeleton = build_skeleton(folder, dtype=torch.float32)
    linear = linear_modules(skeleton)
    targets = resolve_targets(adapter, family=folder.family, linear=linear)
    matched = targeted(linear, targets)
    adapted = _adapted_modules(union, matched)
    config = lora_config(
        adapter,
        # Frozen segments give no part: PEFT would miss their tensors unless the others are named singly.
        targets=list(targets) if adapted == set(matched) else sorted(adapted),
        module=skeleton.get_submodule(matched[0]),
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    config.target_modules = sorted(config.target_modules)  # PEFT keeps a set: its order differs by process
    on_disk = {name.replace(".default.", "."): tensor.contiguous() for name, tensor in union.items()}
    with whole_folder(out_dir, num_bytes=_bytes(union.values()) + SMALL_FILES_BYTES) as temporary:
        config.save_pretrained(str(temporary))
        save_file(on_disk, temporary / "adapter_model.safetensors", metadata={"format": "pt"})


def _adapted_modules(union: Mapping[str, Tensor], matched: tuple[str, ...]) -> set[str]:
    expected = {f"{_PEFT_PREFIX}{module}.lora_{half}.default.weight" for module in matched for half in "AB"}
    unknown = sorted(union.keys() - expected)
    if unknown:
        raise PartsError(
            f"{unknown[0]!r} is no LoRA tensor of this model and adapter; give the job's own parts"
        )
    adapted = {name.removeprefix(_PEFT_PREFIX).partition(".lora_")[0] for name in union}
    halves = [f"{_PEFT_PREFIX}{module}.lora_{half}.default.weight" for module in adapted for half in "AB"]
    missing = sorted(set(halves) - union.keys())
    if missing or not adapted:
        raise PartsError(
            f"the parts lack {missing[0] if missing else 'any LoRA tensor'!r}; give every party's part"
        )
    return adapted


def _export_full(folder: ModelFolder, union: dict[str, Tensor], out_dir: Path) -> None:
    unknown = sorted(union.keys() - folder.sources.keys())
    if unknown:
        raise PartsError(f"{unknown[0]!r} is no parameter of {folder.path}; give the job's own parts")
    places = _places(folder, union)
    at_hand = [folder.tensor(name) for name, file in places.items() if (folder.path / file).exists()]
    needed = sum(info.num_bytes for info in at_hand) + _bytes(union.values()) + SMALL_FILES_BYTES
    with whole_folder(out_dir, num_bytes=needed) as temporary, TensorReader(folder) as reader:
        sizes = [_write_file(file, places, reader, union, temporary) for file in sorted(set(places.values()))]
        if (folder.path / INDEX_FILE).exists():
            index = {"metadata": {"total_size": sum(sizes)}, "weight_map": places}
            _write_json(temporary / INDEX_FILE, index)
        _write_json(temporary / "config.json", _config(folder, union))
        copy_companions(folder.path, temporary)


def _places(folder: ModelFolder, union: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the file of each tensor of the result; refuse what neither a part nor a file holds.

    Files of old models hold buffers too, which are computed: those of an absent file are left out.
    """
    absent = {file for file in set(folder.files.values()) if not (folder.path / file).exists()}
    if not absent:
        return dict(folder.files)
    shapes = {
        folder.parameter_of(name): parameter.shape
        for name, parameter in build_skeleton(folder, dtype=torch.float32).named_parameters()
    }
    places = dict[str, str]()
    for name, file in folder.files.items():
        parameter = folder.parameter_of(name)
        if file not in absent or parameter in union:
            places[name] = file
        elif parameter in shapes:
            raise PartsError(
                f"no part holds {parameter!r}, and {folder.path / file} is absent; give every party's part"
            )
    for parameter, tensor in union.items():
        if tensor.shape != shapes[parameter]:
            raise PartsError(
                f"{parameter!r} has shape {tuple(tensor.shape)} in the parts, {tuple(shapes[parameter])} by "
                f"{folder.path / 'config.json'}"
            )
    return places


def _write_file(
    file: str, places: Mapping[str, str], reader: TensorReader, union: Mapping[str, Tensor], target: Path
) -> int:
    tensors = {name: _trained(name, reader, union) for name, place in places.items() if place == file}
    save_file(tensors, target / file, metadata={"format": "pt"})
    return _bytes(tensors.values())


def _trained(name: str, reader: TensorReader, union: Mapping[str, Tensor]) -> Tensor:
    tensor = union.get(reader.folder.parameter_of(name))
    if tensor is None:
        return reader.read(name)
    part = experts.part_of(tensor, name) if experts.is_expert(name) else tensor.clone()
    if not (reader.folder.path / reader.folder.files[name]).exists():
        return part  # its shape was compared before
    expected = reader.folder.tensor(name).shape
    if tuple(part.shape) != expected:
        raise PartsError(
            f"{name!r} has shape {tuple(part.shape)} in the parts, {expected} in {reader.folder.path}"
        )
    return part


def _config(folder: ModelFolder, union: Mapping[str, Tensor]) -> dict[str, Any]:
    config = {key: value for key, value in folder.config.items() if key not in ("torch_dtype", "dtype")}
    stated = folder.config.get("dtype", folder.config.get("torch_dtype"))
    trained = {str(tensor.dtype).removeprefix("torch.") for tensor in union.values()}
    # The library loads in the type stated here: the base model's would round what was trained in float32.
    wide = "float32" if "float32" in trained else next(iter(sorted(trained)), stated)
    return {**config, "dtype": wide} if wide else config


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
