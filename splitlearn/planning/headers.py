"""Headers of safetensors files: names, types, shapes and sizes, without reading a tensor.

Format: 8 bytes length (little endian), that many bytes of JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format").
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitlearn.planning.errors import ModelFilesError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: Its name in the file.
        path: The file.
        dtype: The file's word for the element type, such as "F32" or "BF16".
        shape: Its axes.
        num_bytes: Size of its data.
        offset: Where its data begins in the file.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    offset: int = 0

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def read_header(path: Path, *, max_header_bytes: int = MAX_HEADER_BYTES) -> dict[str, TensorInfo]:
    """Read what a safetensors file holds.

    Returns:
        The tensors by name, in the order of the file's header.

    Raises:
        ModelFilesError: The file is missing, cut short, or its header is not one.
    """
    try:
        with path.open("rb") as file:
            header = _header_text(file.read(8), path, max_header_bytes)
            text = file.read(header)
        size = path.stat().st_size
    except OSError as error:
        raise ModelFilesError(
            f"{path} cannot be read ({error.strerror}); download the model again or correct the path"
        ) from error
    if len(text) < header:
        raise _corrupt(path, f"the header says {header} bytes, the file has {len(text)}")
    return _parse(text, path, data_begin=8 + header, data_bytes=size - 8 - header)


def _header_text(prefix: bytes, path: Path, max_header_bytes: int) -> int:
    if len(prefix) < 8:  # noqa: PLR2004 - the length field of the format
        raise _corrupt(path, f"it has {len(prefix)} bytes, too few for a safetensors file")
    length: int = struct.unpack("<Q", prefix)[0]
    if length > max_header_bytes:
        raise _corrupt(path, f"its header claims {length} bytes, the limit is {max_header_bytes}")
    return length


def _parse(text: bytes, path: Path, *, data_begin: int, data_bytes: int) -> dict[str, TensorInfo]:
    try:
        entries: dict[str, Any] = json.loads(text)
        entries.pop("__metadata__", None)
        return {
            name: _tensor(name, entry, path, data_begin=data_begin, data_bytes=data_bytes)
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(path, f"its header is malformed ({error})") from error


def _tensor(name: str, entry: dict[str, Any], path: Path, *, data_begin: int, data_bytes: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise TypeError(f"{name!r} has a shape or offset that is no count")
    info = TensorInfo(name, path, entry["dtype"], shape, end - begin, data_begin + begin)
    if not 0 <= begin <= end <= data_bytes:
        raise _corrupt(path, f"the tensor {name!r} ends at byte {end}, the file's data at {data_bytes}")
    if info.num_elements * _BITS[info.dtype] != info.num_bytes * 8:
        raise _corrupt(path, f"the tensor {name!r} has {info.num_bytes} bytes, which its shape denies")
    return info


def _corrupt(path: Path, why: str) -> ModelFilesError:
    return ModelFilesError(f"{path} is corrupt: {why}; download the model again")
