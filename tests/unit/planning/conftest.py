"""Model folders written byte by byte: no tensor library is needed to plan."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
BYTES = {"F32": 4, "BF16": 2}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for axis in shape:
            size *= axis
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def llama_tensors(*, layers: int = 4, tied: bool = False, dtype: str = "F32") -> Tensors:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": (dtype, (10, 8))}
    for number in range(layers):
        prefix = f"model.layers.{number}"
        tensors |= {
            f"{prefix}.self_attn.q_proj.weight": (dtype, (8, 8)),
            f"{prefix}.self_attn.v_proj.weight": (dtype, (4, 8)),
            f"{prefix}.mlp.up_proj.weight": (dtype, (16, 8)),
            f"{prefix}.input_layernorm.weight": (dtype, (8,)),
        }
    tensors["model.norm.weight"] = (dtype, (8,))
    if not tied:
        tensors["lm_head.weight"] = (dtype, (10, 8))
    return tensors


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a llama's config and headers; keyword arguments change the config."""

    def write(tensors: Tensors | None = None, **config: Any) -> Path:
        stated = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 8, **config}
        (tmp_path / "config.json").write_text(json.dumps(stated))
        write_safetensors(tmp_path / "model.safetensors", llama_tensors() if tensors is None else tensors)
        return tmp_path

    return write


@pytest.fixture
def write_tensors() -> Callable[[Path, Tensors], None]:
    return write_safetensors


@pytest.fixture
def llama() -> Callable[..., Tensors]:
    return llama_tensors
