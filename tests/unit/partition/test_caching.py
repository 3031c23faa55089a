"""Segments with caches, fed token by token, give the logits of the library's own generation."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from splitlearn.errors import ProtocolError
from splitlearn.partition import (
    BatchLayout,
    BottomDecoder,
    Cut,
    TopDecoder,
    TrunkDecoder,
    cache_bytes_by_layer,
    load_silo_blocks,
    load_trunk,
)
from splitlearn.planning import ModelFolder
from tests.unit.partition.test_composition import EXPERT_LOGITS_BOUND, VARIANTS

FolderOf = Callable[[str], ModelFolder]
WholeModel = Callable[[str], Any]
LENGTHS = (7, 12, 3)  # the variants' windows are 4: every row grows beyond it
NUM_NEW = 6
CUTS = ((1, 1), (0, 2), (3, 0))


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 67, (length,), generator=generator) for length in LENGTHS]


def left_padded() -> Tensor:
    width = max(LENGTHS)
    return torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in prompts()])


def reference(model: Any) -> tuple[Tensor, Tensor]:
    """What the library chooses and its logits: [B, new] and [new, B, V]."""
    model.generation_config = GenerationConfig(max_new_tokens=NUM_NEW, do_sample=False, pad_token_id=0)
    mask_BT = BatchLayout(LENGTHS, "left").attention_mask()
    found = model.generate(
        input_ids=left_padded(), attention_mask=mask_BT, return_dict_in_generate=True, output_logits=True
    )
    return found.sequences[:, -NUM_NEW:], torch.stack(found.logits)


class Split:
    """A model cut in three, each part with its cache."""

    def __init__(self, folder: ModelFolder, cut: Cut, lengths: Sequence[int] = LENGTHS) -> None:
        blocks = load_silo_blocks(folder, cut)
        self.bottom = BottomDecoder(blocks.bottom, lengths)
        self.trunk = TrunkDecoder(load_trunk(folder, cut), lengths)
        self.top = TopDecoder(blocks.top, lengths)

    def prefill(self, ids_BT: Tensor) -> Tensor:
        return self.top.prefill(self.trunk.prefill(self.bottom.prefill(ids_BT)))

    def decode(self, ids_B: Tensor, rows: Sequence[int]) -> Tensor:
        hidden_ND = self.trunk.decode(self.bottom.decode(ids_B, rows), rows)
        return self.top.decode(hidden_ND, rows)


class TestLogits:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_are_the_librarys_bit_for_bit(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        tokens_BS, expected_SBV = reference(whole_model(variant))
        folder = folder_of(variant)
        for bottom_layers, top_layers in CUTS:
            split = Split(folder, folder.cut(bottom_layers=bottom_layers, top_layers=top_layers))
            with torch.no_grad():
                logits = [split.prefill(left_padded())]
                logits += [split.decode(tokens_BS[:, step], range(3)) for step in range(NUM_NEW - 1)]
            found_SBV = torch.stack(logits)
            if variant == "qwen3_moe":  # pads visit other experts, see the test of composition
                bound = EXPERT_LOGITS_BOUND * expected_SBV.abs().max().item()
                assert (found_SBV - expected_SBV).abs().max().item() <= bound
                continue
            assert torch.equal(found_SBV, expected_SBV), (bottom_layers, top_layers)

    @pytest.mark.parametrize("variant", ["llama", "gemma2", "bloom"])
    def test_of_rows_that_go_on_do_not_depend_on_those_that_ended(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        tokens_BS, expected_SBV = reference(whole_model(variant))
        folder = folder_of(variant)
        split = Split(folder, folder.cut(bottom_layers=1, top_layers=1))
        with torch.no_grad():
            split.prefill(left_padded())
            split.decode(tokens_BS[:, 0], (0, 1, 2))
            for step in range(1, NUM_NEW - 1):
                ids_B = tokens_BS[:, step].clone()
                ids_B[1] = 66
                logits_BV = split.decode(ids_B, (0, 2))
                assert torch.equal(logits_BV[[0, 2]], expected_SBV[step + 1][[0, 2]]), step


class TestCache:
    def test_holds_what_a_window_needs(self, folder_of: FolderOf) -> None:
        folder = folder_of("gemma2")
        trunk = load_trunk(folder, folder.cut(bottom_layers=2, top_layers=1))
        num_bytes, windows = cache_bytes_by_layer(trunk)
        assert num_bytes == [2 * 2 * 8 * 4] * 2  # keys and values of two heads of 8 in fp32
        assert windows == [4, None]

    def test_of_no_layers_is_empty(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        split = Split(folder, folder.cut(bottom_layers=0, top_layers=0))
        with torch.no_grad():
            assert split.prefill(left_padded()).shape == (3, 67)
        assert split.bottom._cache.bytes_by_layer == []

    @pytest.mark.parametrize("shape", [(21, 32), (22, 16), (0, 32)])
    def test_refuses_prompts_of_another_shape(self, shape: tuple[int, int], folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        split = Split(folder, folder.cut(bottom_layers=1, top_layers=1))
        for part in (split.trunk, split.top):
            with pytest.raises(ProtocolError, match=rf"{shape[0]}.*expected \[22, 32\]"):
                part.prefill(torch.zeros(shape))

    def test_refuses_tokens_of_another_shape(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        split = Split(folder, folder.cut(bottom_layers=1, top_layers=1))
        with torch.no_grad():
            split.prefill(left_padded())
        for part in (split.trunk, split.top):
            with pytest.raises(ProtocolError, match=r"expected \[2, 32\]"):
                part.decode(torch.zeros(3, 32), (0, 2))
