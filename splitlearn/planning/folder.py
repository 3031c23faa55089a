"""A model folder, known by its config.json and the headers of its safetensors files."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from splitlearn.families import Family, family_of
from splitlearn.planning.cut import Cut
from splitlearn.planning.errors import ModelFilesError
from splitlearn.planning.headers import TensorInfo, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_POSITION_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk, before any tensor is read.

    Headers are read file by file when first asked for: a party needs only the files that hold its own
    layers to be present.

    Attributes:
        path: The folder.
        config: The content of config.json.
        family: What is known about its family.
        num_layers: Layers of the whole model.
        hidden_size: Width of the hidden states that cross the cut.
        ties_embeddings: Whether head and embedding are one tensor.
        files: The file, inside the folder, of each tensor by the tensor's name on disk.
    """

    path: Path
    config: Mapping[str, Any]
    family: Family
    num_layers: int
    hidden_size: int
    ties_embeddings: bool
    files: Mapping[str, str]
    _headers: dict[str, dict[str, TensorInfo]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Look at a model folder.

        Raises:
            UnknownFamilyError: Not a decoder of a known family.
            ModelFilesError: A file is missing, corrupt, or pickled.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ModelFilesError(
                f"{folder} is not a folder; give the folder that holds the model's config.json"
            )
        config = _read_json(folder / "config.json")
        family = family_of(config)
        _refuse_quantised(config, folder)
        num_layers = _count(config, family.layers_key, folder)
        files, headers = _files(folder)
        _refuse_more_layers(files, family, folder, num_layers=num_layers)
        return cls(
            path=folder,
            config=config,
            family=family,
            num_layers=num_layers,
            hidden_size=_count(config, family.width_key, folder),
            ties_embeddings=bool(config.get("tie_word_embeddings", family.ties_embeddings)),
            files=files,
            _headers=headers,
        )

    def cut(self, *, bottom_layers: int, top_layers: int) -> Cut:
        """Return a cut of this model.

        Raises:
            CutError: It leaves nothing for the trunk.
        """
        return Cut(bottom_layers, top_layers, self.num_layers)

    def tensor(self, name: str) -> TensorInfo:
        """Return one tensor by its name on disk.

        Raises:
            ModelFilesError: The file that should hold it is missing, corrupt, or does not hold it.
        """
        file = self.files[name]
        if file not in self._headers:
            self._headers[file] = read_header(self.path / file)
        info = self._headers[file].get(name)
        if info is None:
            raise ModelFilesError(
                f"{self.path / INDEX_FILE} says that {file} holds {name!r}, but it does not; "
                f"download it again"
            )
        return info

    def tensors(self) -> list[TensorInfo]:
        """Return every tensor; reads the headers of all files."""
        return [self.tensor(name) for name in self.files]

    @property
    def positions(self) -> int | None:
        """How many tokens a row may have, by the model's configuration; None where that does not say."""
        found = next((self.config[key] for key in _POSITION_LIMITS if key in self.config), None)
        return found if isinstance(found, int) else None

    @cached_property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Names on disk by the parameter that they are loaded into. A tied head counts as the embedding."""
        found: dict[str, list[str]] = {}
        for name in self.files:
            found.setdefault(self.parameter_of(name), []).append(name)
        return {parameter: tuple(names) for parameter, names in found.items()}

    def parameter_of(self, tensor: str) -> str:
        """Return the parameter that a tensor on disk is loaded into."""
        parameter = self.family.parameter_of(tensor)
        tied = self.ties_embeddings and parameter == self.family.head_weight
        return self.family.embedding_weight if tied else parameter


def _files(folder: Path) -> tuple[dict[str, str], dict[str, dict[str, TensorInfo]]]:
    if (folder / INDEX_FILE).exists():
        return _index(folder / INDEX_FILE), {}
    if (folder / SINGLE_FILE).exists():
        header = read_header(folder / SINGLE_FILE)
        return dict.fromkeys(header, SINGLE_FILE), {SINGLE_FILE: header}
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.pth"))
    if pickled:
        raise ModelFilesError(
            f"{pickled[0]} is a pickle, which can run code when it is read, and is never opened; "
            f"where you trust it, convert the model to safetensors "
            f"(AutoModelForCausalLM.from_pretrained(...).save_pretrained(...))"
        )
    raise ModelFilesError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; download the model's safetensors"
    )


def _index(path: Path) -> dict[str, str]:
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFilesError(f"{path} has no weight_map; download it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelFilesError(
                f"{path} places {name!r} in {file!r}, which is no safetensors file of the "
                f"folder; download it again"
            )
    return weight_map


def _read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
        content = json.loads(text) if len(text) <= max_bytes else None
    except OSError as error:
        raise ModelFilesError(
            f"{path} cannot be read ({error.strerror}); "
            f"give a folder as saved by Hugging Face's save_pretrained"
        ) from error
    except ValueError as error:
        raise ModelFilesError(f"{path} is not JSON ({error}); download it again") from error
    except RecursionError as error:
        raise ModelFilesError(f"{path} is nested too deeply; download it again") from error
    if not isinstance(content, dict):
        raise ModelFilesError(f"{path} is not a JSON object of at most {max_bytes} bytes; download it again")
    return content


def _refuse_quantised(config: Mapping[str, Any], folder: Path) -> None:
    quantization = config.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    raise ModelFilesError(
        f"{folder / 'config.json'} has a quantization_config ({method or 'of no stated method'}), and "
        "quantised weights cannot be trained; use the unquantised model"
    )


def _refuse_more_layers(files: Iterable[str], family: Family, folder: Path, *, num_layers: int) -> None:
    layers = (family.layer_of(family.parameter_of(name)) for name in files)
    found = max((layer + 1 for layer in layers if layer is not None), default=0)
    if found > num_layers:
        raise ModelFilesError(
            f"{folder / 'config.json'}: {family.layers_key[0]} is {num_layers}, but the weights have {found} "
            "layers; correct it, or download the model again"
        )


def _count(config: Mapping[str, Any], keys: tuple[str, ...], folder: Path) -> int:
    value = next((config[key] for key in keys if key in config), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelFilesError(f"{folder / 'config.json'}: {keys[0]} is {value!r}, not a count; correct it")
    return value
