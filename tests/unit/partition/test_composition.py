"""Bottom, trunk and top, with nothing but packed tokens between them, are the whole model."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from splitlearn.partition import BatchLayout, SiloBlocks, TrunkSegment, load_silo_blocks, load_trunk
from splitlearn.planning import ModelFolder

FolderOf = Callable[[str], ModelFolder]
WholeModel = Callable[[str], Any]
LAYOUTS = (
    BatchLayout((7, 12, 3), "right"),
    BatchLayout((7, 12, 3), "left"),
    BatchLayout((10, 10), "right"),
    BatchLayout((5, 9), "left", width=13),
)
CUTS = ((1, 1), (0, 2), (3, 0))
VARIANTS = [
    "llama", "llama-tied", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi", "phi3", "glm", "glm4",
    "gpt2", "gpt2-scaled", "opt", "opt-projected", "gpt_neox", "bloom", "falcon", "falcon-alibi", "qwen3_moe",
]  # fmt: skip

WINDOWED = ("gemma2", "gemma3_text", "mistral", "phi3", "qwen2", "qwen3")


def tokens(layout: BatchLayout) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, 67, (layout.num_rows, layout.width), generator=generator)


def compose(silo: SiloBlocks, trunk: TrunkSegment, ids_BT: Tensor, layout: BatchLayout) -> Tensor:
    activations_BTD = layout.unpack(layout.pack(silo.bottom(ids_BT, layout)))
    hidden_BTD = layout.unpack(layout.pack(trunk(activations_BTD, layout)))
    logits_BTV: Tensor = silo.top(hidden_BTD, layout)
    return logits_BTV


class Pair:
    """The same model cut and whole, to compare the gradients of one loss."""

    def __init__(self, folder: ModelFolder, whole: Any) -> None:
        at = folder.cut(bottom_layers=1, top_layers=2)
        self.silo, self.trunk, self.whole = load_silo_blocks(folder, at), load_trunk(folder, at), whole

    def gradients(self, layout: BatchLayout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return gradients by parameter name: through the segments, and through the whole model."""
        parts = (self.silo.bottom, self.trunk, self.silo.top)
        for module in (*parts, self.whole):
            module.zero_grad()
        logits = self.whole(input_ids=tokens(layout), attention_mask=layout.attention_mask()).logits
        composed = compose(self.silo, self.trunk, tokens(layout), layout)
        torch.autograd.backward(logits[layout.valid()].square().sum())
        torch.autograd.backward(composed[layout.valid()].square().sum())
        split = [pair for segment in parts for pair in segment.trainable]
        return grads_of(split), grads_of(self.whole.named_parameters())


def rows_depend_on_their_number() -> bool:
    """Whether this machine's matrix product rounds a row differently when there are more rows.

    An expert computes the rows that chose it. Pads, whose hidden states do not cross the cut, choose other
    experts than in the whole model: where a row's result depends on how many there are, no cut can give the
    same bits.
    """
    generator = torch.Generator().manual_seed(7)
    for num_out, num_in in ((32, 32), (32, 16)):
        rows = torch.randn(36, num_in, generator=generator)
        weight = torch.randn(num_out, num_in, generator=generator)
        all_of_them = torch.nn.functional.linear(rows, weight)
        for number in range(1, len(rows)):
            if not torch.equal(torch.nn.functional.linear(rows[:number], weight), all_of_them[:number]):
                return True
    return False


# Products of 32 terms, each rounded by 2**-24 of the largest partial sum, in five layers: 9.6e-6 of the
# largest value; the way back adds as much again.
EXPERT_LOGITS_BOUND, EXPERT_GRADIENTS_BOUND = 1e-5, 2e-5


def grads_of(parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}


class TestLogits:
    @pytest.mark.parametrize("cut", CUTS)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_equal_the_whole_models_bit_for_bit(
        self, variant: str, cut: tuple[int, int], folder_of: FolderOf, frozen_model: WholeModel
    ) -> None:
        folder = folder_of(variant)
        at = folder.cut(bottom_layers=cut[0], top_layers=cut[1])
        silo, trunk, whole = load_silo_blocks(folder, at), load_trunk(folder, at), frozen_model(variant)
        for layout in LAYOUTS:
            ids_BT, valid_BT = tokens(layout), layout.valid()
            with torch.no_grad():
                expected = whole(input_ids=ids_BT, attention_mask=layout.attention_mask()).logits
                composed = compose(silo, trunk, ids_BT, layout)
            if variant == "qwen3_moe" and layout.has_pads and rows_depend_on_their_number():
                bound = EXPERT_LOGITS_BOUND * expected[valid_BT].abs().max().item()
                assert (composed[valid_BT] - expected[valid_BT]).abs().max().item() <= bound, layout
                continue
            assert torch.equal(composed[valid_BT], expected[valid_BT]), layout

    @pytest.mark.parametrize(
        ("variant", "setting", "value"),
        [
            *((variant, "sliding_window", 64) for variant in WINDOWED),
            ("gemma2", "final_logit_softcapping", None),
            ("gpt2-scaled", "scale_attn_by_inverse_layer_idx", False),
        ],
    )
    def test_depend_on_what_the_variant_exercises(
        self, variant: str, setting: str, value: object, model_path: Callable[[str], Any]
    ) -> None:
        layout = LAYOUTS[0]
        batch = {"input_ids": tokens(layout), "attention_mask": layout.attention_mask()}
        with torch.no_grad():
            as_saved = AutoModelForCausalLM.from_pretrained(model_path(variant))(**batch).logits
            changed = AutoModelForCausalLM.from_pretrained(model_path(variant), **{setting: value})(
                **batch
            ).logits
        assert not torch.equal(as_saved[layout.valid()], changed[layout.valid()])

    def test_of_no_rows_are_empty(self, folder_of: FolderOf) -> None:
        folder, nobody = folder_of("llama"), BatchLayout((), "right", width=6)
        at = folder.cut(bottom_layers=1, top_layers=1)
        silo, trunk = load_silo_blocks(folder, at), load_trunk(folder, at)
        logits = compose(silo, trunk, torch.zeros(0, 6, dtype=torch.int64), nobody)
        assert logits.shape == (0, 6, 67)

    def test_do_not_depend_on_tokens_at_pads(self, folder_of: FolderOf) -> None:
        folder, layout = folder_of("gpt2"), LAYOUTS[1]
        at = folder.cut(bottom_layers=1, top_layers=1)
        silo, trunk = load_silo_blocks(folder, at), load_trunk(folder, at)
        ids_BT = tokens(layout)
        other_BT = torch.where(layout.valid(), ids_BT, 66)
        with torch.no_grad():
            first, second = compose(silo, trunk, ids_BT, layout), compose(silo, trunk, other_BT, layout)
        assert torch.equal(first[layout.valid()], second[layout.valid()])


class TestGradients:
    @pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "qwen3_moe"])
    def test_equal_the_whole_models_bit_for_bit(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        pair = Pair(folder_of(variant), whole_model(variant))
        for layout in LAYOUTS:
            found, expected = pair.gradients(layout)
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                assert torch.equal(gradient, expected[name]), (layout, name)

    def test_of_experts_equal_the_whole_models_up_to_rounding(
        self, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        pair = Pair(folder_of("qwen3_moe"), whole_model("qwen3_moe"))
        for layout in LAYOUTS:
            found, expected = pair.gradients(layout)
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                # Pads, whose hidden states differ, visit other experts: their zero gradients change nothing
                # but the length, hence the order, of the sums over an expert's rows. At most 36 rows, each
                # rounding by 2**-24 of the largest term, stay below 2.2e-6 of the largest gradient.
                inexact = ".experts." in name and layout.has_pads
                bound = 2.2e-6 if inexact else 0.0
                if layout.has_pads and rows_depend_on_their_number():
                    bound = EXPERT_GRADIENTS_BOUND
                largest = expected[name].abs().max().item()
                assert (gradient - expected[name]).abs().max().item() <= bound * largest, (layout, name)


class TestSegmentsAlone:
    def test_count_cache_positions_from_zero(self, folder_of: FolderOf) -> None:
        folder = folder_of("gemma2")
        trunk = load_trunk(folder, folder.cut(bottom_layers=2, top_layers=1))
        positions = [module.layer_idx for module in trunk.modules() if hasattr(module, "layer_idx")]
        assert positions == [0, 1]
        assert trunk.base.config.num_hidden_layers == 2
        assert trunk.base.config.layer_types == ["sliding_attention", "full_attention"]

    def test_keep_the_layers_names(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        trunk = load_trunk(folder, folder.cut(bottom_layers=2, top_layers=1))
        layers = {name.split(".")[2] for name, _ in trunk.trainable}
        assert layers == {"2", "3"}

    @pytest.mark.parametrize("variant", ["gpt2", "gpt_neox", "phi"])
    def test_drop_out_embeddings_once(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        at = folder.cut(bottom_layers=0, top_layers=0)
        silo = load_silo_blocks(folder, at)
        top = silo.top.train()
        layout = BatchLayout((4,))
        hidden_BTD = torch.ones(1, 4, 32)
        with torch.no_grad():
            assert torch.equal(top(hidden_BTD, layout), top(hidden_BTD, layout))
