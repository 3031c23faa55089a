"""A trunk that was trained goes back to its first values bit for bit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from splitlearn.partition import ModelFolder, load_segment_state, segment_state
from splitlearn.planning import Cut, DeviceMemory
from splitlearn.spec import JobSpec
from worker.memory import Demand, TrunkTooLargeError
from worker.trunk_cache import TrunkCache

CUT = Cut(bottom_layers=1, top_layers=1, num_layers=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return save_model(tmp_path_factory.mktemp("model"), layers=3)


def save_model(path: Path, *, layers: int) -> ModelFolder:
    config = AutoConfig.for_model(
        "llama",
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return ModelFolder.open(path)


def spec(**fields: object) -> JobSpec:
    return JobSpec.parse({"model": "m@sha256:0", "silos": [{"name": "a", "dataset": "a"}], **fields})


def demand(folder: ModelFolder, **fields: object) -> Demand:
    return Demand(spec(**fields), folder, CUT)


@dataclass
class Memory:
    """Made-up memory of devices, of which every loaded trunk takes as much."""

    free_bytes: Sequence[int]
    per_trunk: int = 0
    cache: TrunkCache | None = None

    def __call__(self, devices: Sequence[torch.device]) -> list[DeviceMemory]:
        taken = self.per_trunk * (len(self.cache) if self.cache is not None else 0)
        return [
            DeviceMemory(str(device), free - taken)
            for device, free in zip(devices, self.free_bytes, strict=True)
        ]


class TestTrunkCache:
    @pytest.mark.parametrize("kind", ["lora", "full"])
    def test_gives_a_trunk_as_before_the_first_step(self, kind: str, folder: ModelFolder) -> None:
        cache, wanted = TrunkCache([CPU]), demand(folder, adapter={"kind": kind})
        trunk = cache.get(wanted)
        before = segment_state(trunk)
        with torch.no_grad():
            for _, tensor in trunk.named_trainable():
                tensor.add_(1.0)
        after = segment_state(cache.get(wanted))
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_gives_also_the_frozen_halves_of_adapters_as_they_were(self, folder: ModelFolder) -> None:
        cache, wanted = TrunkCache([CPU]), demand(folder, adapter={"kind": "lora", "freeze_a": True})
        trunk = cache.get(wanted)
        before = segment_state(trunk)
        assert any(".lora_A." in name for name in before)
        load_segment_state(trunk, {name: value + 1 for name, value in before.items()})
        after = segment_state(cache.get(wanted))
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_keeps_adapters_base(self, folder: ModelFolder) -> None:
        cache = TrunkCache([CPU])
        assert cache.get(demand(folder)) is cache.get(demand(folder, rounds=2))

    def test_loads_anew_for_another_seed(self, folder: ModelFolder) -> None:
        cache = TrunkCache([CPU])
        assert cache.get(demand(folder)) is not cache.get(demand(folder, seed=1))


class TestRoom:
    def test_trunks_stay_as_long_as_there_is_room(self, folder: ModelFolder) -> None:
        cache = TrunkCache([CPU], free_memory=Memory([1 << 40]))
        first = cache.get(demand(folder))
        cache.get(demand(folder, seed=1))
        assert cache.get(demand(folder)) is first

    def test_the_one_that_was_used_longest_ago_makes_room(self, folder: ModelFolder) -> None:
        needed = demand(folder).estimate().total
        memory = Memory([3 * needed - 1], per_trunk=needed)
        cache = memory.cache = TrunkCache([CPU], free_memory=memory)
        first, second = cache.get(demand(folder)), cache.get(demand(folder, seed=1))
        assert cache.get(demand(folder)) is first
        third = cache.get(demand(folder, seed=2))
        assert len(cache) == 2
        assert cache.get(demand(folder)) is first
        assert cache.get(demand(folder, seed=2)) is third
        assert cache.get(demand(folder, seed=1)) is not second

    def test_a_single_device_is_tried_whatever_the_estimate_says(self, folder: ModelFolder) -> None:
        cache = TrunkCache([CPU], free_memory=Memory([0]))
        assert cache.get(demand(folder)) is cache.get(demand(folder, rounds=2))

    def test_a_trunk_that_is_too_large_for_one_device_is_laid_over_two(self, tmp_path: Path) -> None:
        wanted = Demand(spec(), save_model(tmp_path, layers=4), Cut(1, 1, 4))
        memory = Memory([wanted.estimate().total - 1] * 2)
        cache = TrunkCache([CPU, torch.device("meta")], free_memory=memory)
        places = {name.split(".")[4]: tensor.device for name, tensor in cache.get(wanted).named_trainable()}
        assert places == {"1": CPU, "2": torch.device("meta")}

    def test_several_devices_that_do_not_hold_it_are_refused(self, folder: ModelFolder) -> None:
        cache = TrunkCache([CPU, torch.device("cpu", 1)], free_memory=Memory([0, 0]))
        with pytest.raises(TrunkTooLargeError, match="not one layer fits"):
            cache.get(demand(folder))
