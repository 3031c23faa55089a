"""Models of which no file exists, and parties of round numbers."""

from collections.abc import Mapping
from typing import Any

from splitlearn.planning import (
    Cut,
    Line,
    ModelFolder,
    ModelManifest,
    Rate,
    SiloPlace,
    Speed,
    Surroundings,
    TensorEntry,
    TensorFile,
)
from splitlearn.spec import JobSpec

WIDTH, LAYERS, VOCABULARY, INNER = 32, 4, 64, 96
SPEED = Speed(
    layer_seconds=0.01,
    rates=(Rate(WIDTH, 1e9),),
    logits_per_second=1e6,
    updates_per_second=1e7,
    message_seconds=0.0,
)


def llama(*, layers: int = LAYERS) -> ModelFolder:
    """A small Llama whose head is not its embedding."""

    def file(name: str, shapes: Mapping[str, tuple[int, ...]]) -> TensorFile:
        tensors = {
            tensor: TensorEntry(dtype="F32", shape=shape, num_bytes=0) for tensor, shape in shapes.items()
        }
        return TensorFile(name=name, digest="0" * 64, num_bytes=0, tensors=tensors)

    layer = {
        **{f"self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")},
        "mlp.down_proj.weight": (WIDTH, INNER),
        "input_layernorm.weight": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,),
    }
    numbered = [
        file(
            f"layer-{number:05d}.safetensors",
            {f"model.layers.{number}.{name}": shape for name, shape in layer.items()},
        )
        for number in range(layers)
    ]
    config = {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_attention_heads": 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }
    ends = (
        file("before.safetensors", {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}),
        file("after.safetensors", {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}),
    )
    return ModelManifest(
        source="made up",
        family="llama",
        num_layers=layers,
        hidden_size=WIDTH,
        num_parameters=0,
        num_bytes=0,
        config=config,
        companions=(),
        files=(*ends, *numbered),
    ).folder()


def cut_of(folder: ModelFolder) -> Cut:
    """One layer at either end."""
    return folder.cut(bottom_layers=1, top_layers=1)


def job(num_silos: int = 4, **fields: Any) -> JobSpec:
    """A job of so many silos that train everything."""
    silos = [{"name": f"silo-{number}", "dataset": "notes"} for number in range(num_silos)]
    return JobSpec.parse(
        {
            "model": "made-up",
            "silos": silos,
            "silo_blocks": "local",
            "adapter": {"kind": "full"},
            "batch_size": 2,
            "max_tokens": 16,
            **fields,
        }
    )


def around(spec: JobSpec, *, round_trip_seconds: float = 0.0, num_workers: int = 1) -> Surroundings:
    """Parties that are all alike, each on a machine of its own."""
    line = Line(round_trip_seconds)
    silos = {silo.name: SiloPlace(SPEED, line) for silo in spec.silos}
    return Surroundings(trunks=[SPEED] * num_workers, silos=silos)
