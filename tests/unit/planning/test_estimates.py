"""The planner's memory against what processes were measured to need."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from splitlearn.evaluation_spec import MAX_CACHE_BYTES
from splitlearn.planning import (
    Memory,
    ModelManifest,
    Role,
    TensorEntry,
    TensorFile,
    Training,
    estimate_memory,
)
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.sizes import lora_parameters
from splitlearn.spec import JobSpec, LoraAdapter

TOLERANCE = 0.25
MIB = 1 << 20
LAYERS = 8
# Largest resident memory over three steps, less that of the process with its libraries, in MiB: Linux, the
# allocator of glibc, torch 2.13, one thread; a Llama of 8 layers, one at either end at the silo, 11/4 as wide
# within as without, 4096 (of width 256) or 8192 words.
MEASURED = """
    worker  256 full  8 128  271
    worker  256 full 16 256  855
    agent   256 full  8 128  216
    agent   256 full 16 256  615
    worker  256 lora  8 128  230
    worker  256 lora 16 256  807
    agent   256 lora  8 128  183
    agent   256 lora 16 256  575
    worker  512 full  8 128  684
    worker  512 full 16 256 1713
    agent   512 full  8 128  505
    agent   512 full 16 256 1274
    worker  512 lora  8 128  464
    worker  512 lora 16 256 1616
    agent   512 lora  8 128  340
    agent   512 lora 16 256 1117
    worker 1024 full  8 128 1793
"""
ROWS = [re.split(r" +", line.strip()) for line in MEASURED.strip().splitlines()]


def llama(width: int) -> ModelFolder:
    """A Llama of this width, of which no file exists."""
    inner, vocab = width * 11 // 4, 4096 if width == 256 else 8192

    def file(name: str, shapes: Mapping[str, tuple[int, ...]]) -> TensorFile:
        tensors = {
            tensor: TensorEntry(dtype="F32", shape=shape, num_bytes=0) for tensor, shape in shapes.items()
        }
        return TensorFile(name=name, digest="0" * 64, num_bytes=0, tensors=tensors)

    layer = {
        **{f"self_attn.{name}_proj.weight": (width, width) for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")},
        "mlp.down_proj.weight": (width, inner),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": width // 64,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
    }
    files = [
        file(
            f"layer-{number:05d}.safetensors",
            {f"model.layers.{number}.{name}": shape for name, shape in layer.items()},
        )
        for number in range(LAYERS)
    ]
    ends = (
        {"model.embed_tokens.weight": (vocab, width)},
        {
            "model.norm.weight": (width,),
            "lm_head.weight": (vocab, width),
        },
    )
    return ModelManifest(
        source="s",
        family="llama",
        num_layers=LAYERS,
        hidden_size=width,
        num_parameters=0,
        num_bytes=0,
        config=config,
        companions=(),
        files=(file("before.safetensors", ends[0]), file("after.safetensors", ends[1]), *files),
    ).folder()


def estimate(party: str, width: int, adapter: str, rows: int, row_tokens: int) -> int:
    spec = JobSpec.parse(
        json.dumps(
            {
                "model": "m",
                "silos": [{"name": "a", "dataset": "a"}],
                "silo_blocks": "local",
                "adapter": {"kind": adapter},
                "batch_size": rows,
                "max_tokens": row_tokens,
            }
        ).encode()
    )
    folder = llama(width)
    cut = folder.cut(bottom_layers=1, top_layers=1)
    roles = (Role.TRUNK,) if party == "worker" else (Role.BOTTOM, Role.TOP)
    return sum(estimate_memory(folder, cut, role, Training.of(spec, role)).total for role in roles)


class TestEstimate:
    @pytest.mark.parametrize("row", ROWS, ids=["-".join(row[:5]) for row in ROWS])
    def test_is_near_what_was_measured(self, row: list[str]) -> None:
        party, width, adapter, rows, row_tokens, measured = row
        said = estimate(party, int(width), adapter, int(rows), int(row_tokens)) / MIB
        assert said == pytest.approx(float(measured), rel=TOLERANCE)

    def test_of_adapters_is_less_where_memory_is_pooled_by_size(self) -> None:
        folder = llama(256)
        cut = folder.cut(bottom_layers=1, top_layers=1)
        spec = JobSpec.parse({"model": "m", "silos": [{"name": "a", "dataset": "a"}]})
        on_heap, pooled = (
            estimate_memory(folder, cut, Role.TRUNK, Training.of(spec, Role.TRUNK, on_heap=on_heap))
            for on_heap in (True, False)
        )
        assert pooled.lasting == on_heap.lasting
        assert pooled.activations < 0.8 * on_heap.activations

    def test_of_layers_computed_again_is_one_layers_and_every_layers_input(self) -> None:
        folder = llama(256)
        cut = folder.cut(bottom_layers=1, top_layers=1)
        fields = {"model": "m", "silos": [{"name": "a", "dataset": "a"}]}
        plain, again = (
            Training.of(
                JobSpec.parse({**fields, "gradient_checkpointing": wanted}), Role.TRUNK, on_heap=False
            )
            for wanted in (False, True)
        )
        assert again.kept(folder) == again.end(folder)
        assert again.passing(folder) - plain.passing(folder) == plain.kept(folder)
        saved = estimate_memory(folder, cut, Role.TRUNK, plain).activations
        saved -= estimate_memory(folder, cut, Role.TRUNK, again).activations
        num_layers = LAYERS - 2
        assert saved == (num_layers - 1) * plain.kept(folder) - num_layers * plain.end(folder) > 0

    def test_in_half_precision_counts_the_copies_of_the_weights(self) -> None:
        folder = llama(256)
        cut = folder.cut(bottom_layers=1, top_layers=1)
        fields = {"model": "m", "silos": [{"name": "a", "dataset": "a"}]}
        whole, half = (
            estimate_memory(
                folder, cut, Role.TRUNK, Training.of(JobSpec.parse({**fields, "precision": word}), Role.TRUNK)
            )
            for word in ("fp32", "bf16")
        )
        assert half.lasting == whole.lasting
        assert half.activations - whole.activations == 2 * whole.weights // 4 - 2 * added_by_lora(folder)


def added_by_lora(folder: ModelFolder) -> int:
    """Parameters that the default adapter adds to the trunk, which are computed with as they are."""
    cut = folder.cut(bottom_layers=1, top_layers=1)
    return lora_parameters(folder, cut, LoraAdapter())[Role.TRUNK]


class TestCaches:
    """A job that scores what it generates keeps keys and values; no other does."""

    TASK: ClassVar[dict[str, Any]] = {"kind": "summarise", "metrics": ["rouge-1"]}

    def memory(self, role: Role = Role.TRUNK, **fields: Any) -> Memory:
        folder = llama(256)
        silos = [{"name": "a", "dataset": "a"}]
        spec = JobSpec.parse({"model": "m", "silos": silos, "max_tokens": 33, **fields})
        cut = folder.cut(bottom_layers=1, top_layers=1)
        return estimate_memory(folder, cut, role, Training.of(spec, role))

    def test_are_those_of_the_largest_batch(self) -> None:
        found = self.memory(task=self.TASK, evaluation={"batch_size": 5})
        one_layer = 5 * 2 * 32 * 2 * 256 * 4  # rows, prompt and answer, keys and values, fp32
        layers_of_trunk = LAYERS - 2
        assert found.caches == (layers_of_trunk + 1) * one_layer

    @pytest.mark.parametrize("role", Role)
    def test_count_where_they_are_more_than_training_takes(self, role: Role) -> None:
        few = self.memory(role, task=self.TASK, batch_size=1, evaluation={"batch_size": 64})
        assert few.caches > few.activations + few.logits
        assert few.total == few.lasting + few.caches
        many = self.memory(role, task=self.TASK, batch_size=64, evaluation={"batch_size": 1})
        assert many.total == many.lasting + many.activations + many.logits

    @pytest.mark.parametrize("task", [{"kind": "summarise"}, {"kind": "sft"}])
    def test_of_a_job_that_generates_nothing_are_none(self, task: dict[str, Any]) -> None:
        assert self.memory(task=task).caches == 0

    def test_of_the_trunk_are_no_more_than_its_limit(self) -> None:
        evaluation = {"batch_size": 64}
        trunk = self.memory(task=self.TASK, evaluation=evaluation, max_tokens=65536)
        one_layer = 64 * 2 * 65535 * 2 * 256 * 4
        assert trunk.caches == MAX_CACHE_BYTES + one_layer
