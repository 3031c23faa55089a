"""Reads a segment's tensors, and no others, from safetensors into a skeleton."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from splitlearn.families import Family
from splitlearn.partition import experts
from splitlearn.partition.spread import Spread
from splitlearn.planning import ModelFilesError, ModelFolder


@dataclass
class TensorReader:
    """Reads tensors of one model folder and counts what it read. Use as a context.

    Attributes:
        folder: The model.
        bytes_read: Bytes of tensors read so far, as they lie on disk.
        tensors_read: Their names on disk, in order of reading.
    """

    folder: ModelFolder
    bytes_read: int = 0
    tensors_read: list[str] = field(default_factory=list)
    _open: dict[Path, Any] = field(default_factory=dict, repr=False)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def read(self, name: str) -> Tensor:
        """Read one tensor by its name on disk.

        Raises:
            ModelFilesError: Its file is missing or corrupt.
        """
        info = self.folder.tensor(name)
        try:
            if info.path not in self._open:
                opened = safe_open(info.path, framework="pt", device="cpu")
                self._open[info.path] = self._stack.enter_context(opened)
            tensor: Tensor = self._open[info.path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelFilesError(f"{info.path} is corrupt: {error}; download the model again") from error
        self.bytes_read += info.num_bytes
        self.tensors_read.append(name)
        return tensor

    def parameter(self, parameter: str, *, shape: torch.Size) -> Tensor:
        """Read what one parameter is loaded from, joining per-expert tensors.

        Raises:
            ModelFilesError: The files lack it, or hold another shape than the configuration implies.
        """
        names = self.folder.sources.get(parameter)
        if names is None:
            raise ModelFilesError(
                f"{self.folder.path} lacks the tensor {parameter!r} that its config.json implies; "
                f"download the model again"
            )
        tensor = self._one(parameter, names)
        if tensor.shape != shape:
            raise ModelFilesError(
                f"{self.folder.path}: {parameter!r} has shape {tuple(tensor.shape)}, config.json implies "
                f"{tuple(shape)}; the files do not belong together"
            )
        return tensor

    def _one(self, parameter: str, names: tuple[str, ...]) -> Tensor:
        if len(names) == 1:
            return self.read(names[0])
        if experts.is_expert(names[0]):
            return experts.join(names, self.read)
        first, *others = (self.read(name) for name in names)
        if all(torch.equal(first, other) for other in others):
            return first
        raise ModelFilesError(
            f"{self.folder.path}: config.json ties the embeddings, but {' and '.join(names)} differ "
            f"(both would be {parameter!r}); set tie_word_embeddings to false"
        )


def fill(
    model: Any,
    reader: TensorReader,
    *,
    dtype: torch.dtype,
    spread: Spread,
    shared: dict[str, nn.Parameter],
) -> None:
    """Give a cut skeleton its tensors, in place.

    Args:
        model: A skeleton after :func:`~splitlearn.partition.skeleton.cut_skeleton`.
        reader: Where to read from.
        dtype: Type of floating-point parameters in memory.
        spread: Where they go.
        shared: Parameters that another segment of this party holds already, by name: not read again.

    Raises:
        ModelFilesError: A tensor is missing, corrupt, or of a wrong shape.
    """
    family = reader.folder.family
    compute_buffers(model, family=family, spread=spread)
    for name, meta in list(model.named_parameters()):
        source = reader.folder.parameter_of(name)
        parameter = shared.get(source)
        if parameter is None:
            tensor = reader.parameter(source, shape=meta.shape)
            parameter = nn.Parameter(
                tensor.to(
                    device=spread.device_of(family.layer_of(name)),
                    dtype=dtype if meta.is_floating_point() else None,
                )
            )
        path, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(path), attribute, parameter)


def compute_buffers(model: Any, *, family: Family, spread: Spread) -> None:
    """Compute the buffers that are in no file (rotary frequencies, embedding scale), as the library does.

    ``PreTrainedModel._init_weights`` is what ``from_pretrained`` calls for them; a parameter marked
    ``_is_hf_initialized`` is left alone by it.
    """
    for path, module in list(model.named_modules()):
        device = spread.device_of(family.layer_of(f"{path}."))
        buffers = list(module.named_buffers(recurse=False))
        if not buffers:
            continue
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = True  # noqa: SLF001 - the library's own mark
        for name, buffer in buffers:
            module.register_buffer(name, torch.empty_like(buffer, device=device), persistent=False)
        with torch.no_grad():
            model._init_weights(module)  # noqa: SLF001 - see the docstring
