"""Cutting a model folder into one safetensors file per layer, byte by byte: no tensor is ever decoded."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from backend.artifacts.store import CHUNK_BYTES, ArtifactStore, put_file
from splitlearn.errors import ModelError
from splitlearn.planning import (
    BlobFile,
    ModelFolder,
    ModelManifest,
    TensorEntry,
    TensorFile,
    TensorInfo,
    group_by_file,
)

COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
_ALIGNMENT = 8  # the format wants its header to end there


def register(folder: ModelFolder, store: ArtifactStore, *, source: str, max_bytes: int) -> ModelManifest:
    """Put a model's files into the store; the same model always gives the same files and digests.

    Args:
        folder: The model.
        store: Gets the files.
        source: What the manifest says of where it came from.
        max_bytes: Largest file.

    Raises:
        ModelError: A file is corrupt, or the tokenizer is missing.
    """
    if not (folder.path / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder.path} has no tokenizer.json; save the model's fast tokenizer there (save_pretrained)"
        )
    _refuse_odd_numbers(folder)
    files = tuple(
        _put_tensors(name, tensors, store, max_bytes=max_bytes)
        for name, tensors in group_by_file(folder).items()
    )
    companions = tuple(
        _put_companion(folder.path / name, store, max_bytes=max_bytes)
        for name in COMPANIONS
        if (folder.path / name).is_file()
    )
    tensors = folder.tensors()
    return ModelManifest(
        source=source,
        family=folder.family.model_type,
        num_layers=folder.num_layers,
        hidden_size=folder.hidden_size,
        num_parameters=sum(info.num_elements for info in tensors),
        num_bytes=sum(info.num_bytes for info in tensors),
        config=dict(folder.config),
        companions=companions,
        files=files,
    )


def _refuse_odd_numbers(folder: ModelFolder) -> None:
    try:
        json.dumps(folder.config, allow_nan=False)
    except ValueError as error:
        raise ModelError(
            f"{folder.path / 'config.json'} has NaN or Infinity, which are no JSON (RFC 8259); correct it"
        ) from error


def _put_tensors(
    name: str, tensors: Sequence[TensorInfo], store: ArtifactStore, *, max_bytes: int
) -> TensorFile:
    tensors = sorted(tensors, key=_widest_first)
    with store.writer(None, max_bytes=max_bytes) as writer:
        writer.write(_header(tensors))
        for info in tensors:
            for chunk in _data(info):
                writer.write(chunk)
        digest = writer.commit()
    entries = {
        info.name: TensorEntry(dtype=info.dtype, shape=info.shape, num_bytes=info.num_bytes)
        for info in tensors
    }
    return TensorFile(name=name, digest=digest.hex(), num_bytes=writer.num_bytes, tensors=entries)


def _widest_first(info: TensorInfo) -> tuple[int, str]:
    """Order tensors so that each begins at a multiple of its element size, as readers that map files need."""
    return -(info.num_bytes // max(info.num_elements, 1)), info.name


def _header(tensors: Sequence[TensorInfo]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for info in tensors:
        end = begin + info.num_bytes
        entries[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _data(info: TensorInfo) -> Iterator[bytes]:
    left = info.num_bytes
    with info.path.open("rb") as file:
        file.seek(info.offset)
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise ModelError(f"{info.path} ends within the tensor {info.name!r}; download it again")
            left -= len(chunk)
            yield chunk


def _put_companion(path: Path, store: ArtifactStore, *, max_bytes: int) -> BlobFile:
    digest, num_bytes = put_file(store, path, max_bytes=max_bytes)
    return BlobFile(name=path.name, digest=digest.hex(), num_bytes=num_bytes)
