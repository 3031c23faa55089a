import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.families import FAMILIES
from splitlearn.partition import (
    AdapterError,
    Segment,
    apply_adapter,
    freeze,
    load_segment_state,
    load_silo_blocks,
    load_trunk,
    segment_state,
)
from splitlearn.planning import ModelFolder
from splitlearn.spec import FullAdapter, LoraAdapter

FolderOf = Callable[[str], ModelFolder]
WholeModel = Callable[[str], Any]
LORA = LoraAdapter(r=4, alpha=8)


def segments(
    folder: ModelFolder, adapter: LoraAdapter | FullAdapter | None, *, seed: int = 0
) -> list[Segment]:
    cut = folder.cut(bottom_layers=1, top_layers=1)
    silo = load_silo_blocks(folder, cut, adapter=adapter, seed=seed)
    return [silo.bottom, load_trunk(folder, cut, adapter=adapter, seed=seed), silo.top]


def trained_of(model: Any) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestLora:
    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "glm4", "gpt2", "opt", "bloom", "qwen3_moe"])
    def test_starts_alike_split_or_whole(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        whole = trained_of(apply_adapter(whole_model(variant), LORA, seed=7))
        parts = [pair for segment in segments(folder_of(variant), LORA, seed=7) for pair in segment.trainable]
        assert [name for name, _ in parts] == list(whole)
        assert all(torch.equal(parameter, whole[name]) for name, parameter in parts)

    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
    @pytest.mark.parametrize("variant", ["llama", "gpt2", "phi"])
    def test_names_are_those_of_peft(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        config = LoraConfig(task_type="CAUSAL_LM", r=4, fan_in_fan_out=variant == "gpt2")
        expected = list(trained_of(get_peft_model(whole_model(variant), config)))
        assert [n for segment in segments(folder_of(variant), LORA) for n, _ in segment.trainable] == expected

    def test_draws_from_pefts_distribution(self, folder_of: FolderOf) -> None:
        state = segment_state(segments(folder_of("llama"), LoraAdapter(r=64))[1])
        halves = {half: [t for name, t in state.items() if f"lora_{half}" in name] for half in "AB"}
        drawn = torch.cat([tensor.flatten() for tensor in halves["A"]])
        bound = 32**-0.5  # kaiming uniform with a = sqrt(5) is uniform within 1 / sqrt(fan_in)
        assert drawn.abs().max() < bound
        # 12288 draws: the mean of |x| is bound / 2 with a standard error of bound / 384; 5 % is 9 of them.
        assert drawn.abs().mean() == pytest.approx(bound / 2, rel=0.05)
        assert all(tensor.count_nonzero() == 0 for tensor in halves["B"])

    def test_starts_differ_by_seed_and_by_tensor(self, folder_of: FolderOf) -> None:
        first, second = (segment_state(segments(folder_of("llama"), LORA, seed=seed)[1]) for seed in (1, 2))
        a_names = [name for name in first if "lora_A" in name]
        assert (
            len({tuple(state[name].flatten().tolist()) for state in (first, second) for name in a_names})
            == 12
        )

    def test_freezes_all_else(self, folder_of: FolderOf) -> None:
        for segment in segments(folder_of("llama"), LORA):
            assert all("lora_" in name for name, p in segment.named_parameters() if p.requires_grad)

    def test_takes_the_named_targets(self, folder_of: FolderOf) -> None:
        trunk = segments(folder_of("llama"), LoraAdapter(targets=("down_proj", "mlp.up_proj")))[1]
        adapted = {name.split(".")[-4] for name, _ in trunk.trainable}
        assert adapted == {"down_proj", "up_proj"}

    def test_leaves_a_segment_without_layers_untrained(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        silo = load_silo_blocks(folder, folder.cut(bottom_layers=0, top_layers=0), adapter=LORA)
        assert silo.bottom.trainable == []
        assert silo.top.trainable == []

    @pytest.mark.parametrize("target", ["q_prj", "embed_tokens", "norm"])
    def test_refuses_a_target_that_matches_nothing(self, target: str, folder_of: FolderOf) -> None:
        with pytest.raises(AdapterError, match=f"'{target}' matches no linear module of the llama.*k_proj"):
            segments(folder_of("llama"), LoraAdapter(targets=("q_proj", target)))

    def test_refuses_the_head(self, folder_of: FolderOf) -> None:
        with pytest.raises(AdapterError, match="head"):
            segments(folder_of("llama"), LoraAdapter(targets=("lm_head",)))

    def test_leaves_the_callers_random_state(self, folder_of: FolderOf) -> None:
        bottom = segments(folder_of("llama"), None)[0]
        before = torch.get_rng_state()
        apply_adapter(bottom, LORA, seed=0)
        assert torch.equal(torch.get_rng_state(), before)

    def test_passes_dropout_to_peft(self, folder_of: FolderOf) -> None:
        trunk = segments(folder_of("llama"), LoraAdapter(dropout=0.25))[1]
        rates = {module.p for module in trunk.modules() if isinstance(module, torch.nn.Dropout)}
        assert 0.25 in rates


class TestDefaults:
    @pytest.mark.parametrize("name", sorted(FAMILIES.keys() & PEFT_TARGETS.keys()))
    def test_are_pefts(self, name: str) -> None:
        assert list(FAMILIES[name].lora_targets) == PEFT_TARGETS[name]

    @pytest.mark.parametrize("variant", ["phi3", "glm", "glm4", "qwen3_moe"])
    def test_exist_where_peft_has_none(self, variant: str, folder_of: FolderOf) -> None:
        assert all(segment.trainable for segment in segments(folder_of(variant), LORA))


class TestFull:
    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "gpt2", "qwen3_moe"])
    def test_trains_every_parameter_once_in_order(
        self, variant: str, folder_of: FolderOf, whole_model: WholeModel
    ) -> None:
        whole = apply_adapter(whole_model(variant), FullAdapter(), seed=0)
        parts = segments(folder_of(variant), FullAdapter())
        assert [name for segment in parts for name, _ in segment.trainable] == list(trained_of(whole))


class TestFreeze:
    def test_leaves_nothing_trainable(self, folder_of: FolderOf) -> None:
        bottom, trunk, _ = segments(folder_of("llama"), LORA)
        freeze(bottom)
        assert bottom.trainable == []
        assert trunk.trainable != []


class TestState:
    def test_returns_to_another_copy_of_the_segment(self, folder_of: FolderOf) -> None:
        first, second = (segments(folder_of("llama"), LORA, seed=seed)[1] for seed in (1, 2))
        load_segment_state(second, segment_state(first))
        assert all(
            torch.equal(a, b) for (_, a), (_, b) in zip(first.trainable, second.trainable, strict=True)
        )

    def test_is_a_copy(self, folder_of: FolderOf) -> None:
        trunk = segments(folder_of("llama"), LORA)[1]
        state = segment_state(trunk)
        before = copy.deepcopy(state)
        for _, parameter in trunk.trainable:
            parameter.data.add_(1)
        assert all(torch.equal(state[name], before[name]) for name in state)

    def test_of_another_adapter_is_refused_and_changes_nothing(self, folder_of: FolderOf) -> None:
        trunk, other = (segments(folder_of("llama"), LoraAdapter(r=r))[1] for r in (4, 8))
        before = segment_state(trunk)
        with pytest.raises(StorageError, match="has shape"):
            load_segment_state(trunk, segment_state(other))
        with pytest.raises(StorageError, match="differ in 1 tensors"):
            load_segment_state(trunk, dict(list(before.items())[1:]))
        assert all(torch.equal(tensor, before[name]) for name, tensor in segment_state(trunk).items())
