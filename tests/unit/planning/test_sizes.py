from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitlearn.planning import (
    Batch,
    ModelFolder,
    Role,
    Size,
    Training,
    estimate_memory,
    layer_sizes,
    lora_parameters,
    segment_sizes,
    wire_bytes_per_token,
)
from splitlearn.spec import AdamWSpec, FullAdapter, LoraAdapter, SGDSpec
from splitlearn.wire import Codec, encoded_bytes

WriteModel = Callable[..., Path]
Llama = Callable[..., Any]
LAYER = 8 * 8 + 4 * 8 + 16 * 8 + 8
EMBEDDING = 10 * 8


class TestSegmentSizes:
    def test_add_up_to_the_model(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        sizes = segment_sizes(folder, folder.cut(bottom_layers=1, top_layers=2))
        assert sizes == {
            Role.BOTTOM: Size(5, EMBEDDING + LAYER, 4 * (EMBEDDING + LAYER)),
            Role.TRUNK: Size(4, LAYER, 4 * LAYER),
            Role.TOP: Size(10, 2 * LAYER + 8 + EMBEDDING, 4 * (2 * LAYER + 8 + EMBEDDING)),
        }

    def test_count_a_tied_embedding_in_the_bottom(self, write_model: WriteModel, llama: Llama) -> None:
        folder = ModelFolder.open(write_model(llama(tied=True), tie_word_embeddings=True))
        sizes = segment_sizes(folder, folder.cut(bottom_layers=0, top_layers=0))
        assert sizes[Role.BOTTOM].num_parameters == EMBEDDING
        assert sizes[Role.TOP].num_parameters == 8

    def test_are_in_bytes_of_the_stored_type(self, write_model: WriteModel, llama: Llama) -> None:
        folder = ModelFolder.open(write_model(llama(dtype="BF16")))
        assert layer_sizes(folder) == [Size(4, LAYER, 2 * LAYER)] * 4

    def test_leave_out_what_no_segment_loads(self, write_model: WriteModel, llama: Llama) -> None:
        extra = {**llama(), "model.odd": ("F32", (5,))}
        folder = ModelFolder.open(write_model(extra))
        sizes = segment_sizes(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert sum(size.num_tensors for size in sizes.values()) == 19
        assert len(layer_sizes(folder)) == 4


class TestLoraParameters:
    def test_are_rank_times_inputs_and_outputs(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=0)
        per_layer = 3 * ((8 + 8) + (8 + 4))
        assert lora_parameters(folder, cut, LoraAdapter(r=3)) == {
            Role.BOTTOM: per_layer,
            Role.TRUNK: 3 * per_layer,
            Role.TOP: 0,
        }

    def test_follow_the_targets(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=1)
        adapter = LoraAdapter(r=2, targets=("up_proj", "norm", "proj"))
        assert lora_parameters(folder, cut, adapter)[Role.TRUNK] == 2 * 2 * (16 + 8)


class TestWireBytesPerToken:
    @pytest.mark.parametrize(
        ("codec", "bottom_trains", "expected"),
        [
            ("fp32", True, 4 * 64 * 4),
            ("bf16", True, 4 * 64 * 2),
            ("fp16", False, 3 * 64 * 2),
            ("int8", True, 4 * 65),
        ],
    )
    def test_count_each_crossing(self, codec: Any, *, bottom_trains: bool, expected: int) -> None:
        assert wire_bytes_per_token(64, codec, bottom_trains=bottom_trains) == expected

    @pytest.mark.parametrize("codec", ["fp32", "bf16", "fp16", "int8"])
    def test_are_what_the_codec_takes(self, codec: Any) -> None:
        tokens = 4096
        encoded = 4 * encoded_bytes((tokens, 64), Codec(codec)) / tokens
        # A block has a header of at most 64 bytes: 4 blocks of it, spread over 4096 tokens.
        assert wire_bytes_per_token(64, codec, bottom_trains=True) == pytest.approx(
            encoded, abs=4 * 64 / tokens
        )


class TestEstimateMemory:
    def test_of_full_training_holds_every_parameter_four_times(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=1)
        memory = estimate_memory(folder, cut, Role.TRUNK, Training(FullAdapter(), AdamWSpec(), Batch(10, 10)))
        weights = 2 * LAYER * 4
        assert (memory.weights, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
        assert memory.lasting == 4 * weights
        assert memory.total == memory.lasting + memory.activations
        assert memory.logits == 0

    def test_of_lora_trains_the_adapter_alone(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=1)
        adapter = LoraAdapter(r=2)
        training = Training(adapter, SGDSpec(momentum=0.9), Batch(1, 1))
        memory = estimate_memory(folder, cut, Role.TRUNK, training)
        added = 4 * lora_parameters(folder, cut, adapter)[Role.TRUNK]
        assert (memory.weights, memory.gradients, memory.optimizer) == (2 * LAYER * 4 + added, added, added)

    def test_of_a_job_that_keeps_its_best_round_holds_what_is_trained_once_more(
        self, write_model: WriteModel
    ) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=1)
        plain = Training(FullAdapter(), AdamWSpec(), Batch(1, 1))
        keeping, on_device = (replace(plain, keeps_best=True, on_heap=on_heap) for on_heap in (True, False))
        memory, without = (estimate_memory(folder, cut, Role.TRUNK, each) for each in (keeping, plain))
        assert memory.best == memory.weights
        assert memory.total == without.total + memory.best
        assert estimate_memory(folder, cut, Role.TRUNK, on_device).best == 0, "the copy lies on no device"

    def test_of_frozen_blocks_has_no_gradients(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        cut = folder.cut(bottom_layers=1, top_layers=1)
        training = Training(FullAdapter(), SGDSpec(), Batch(1, 1), trains=False)
        memory = estimate_memory(folder, cut, Role.TOP, training)
        assert (memory.gradients, memory.optimizer) == (0, 0)
