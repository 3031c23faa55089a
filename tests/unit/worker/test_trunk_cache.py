"""A trunk that was trained goes back to its first values bit for bit."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from splitlearn.partition import ModelFolder, segment_state
from splitlearn.planning import Cut
from splitlearn.spec import JobSpec
from worker.trunk_cache import TrunkCache

CUT = Cut(bottom_layers=1, top_layers=1, num_layers=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path = tmp_path_factory.mktemp("model")
    config = AutoConfig.for_model(
        "llama",
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return ModelFolder.open(Path(path))


def spec(**fields: object) -> JobSpec:
    return JobSpec.parse({"model": "m@sha256:0", "silos": [{"name": "a", "dataset": "a"}], **fields})


class TestTrunkCache:
    @pytest.mark.parametrize("kind", ["lora", "full"])
    def test_gives_a_trunk_as_before_the_first_step(self, kind: str, folder: ModelFolder) -> None:
        cache, wanted = TrunkCache(CPU), spec(adapter={"kind": kind})
        trunk = cache.get(wanted, folder, CUT)
        before = segment_state(trunk)
        with torch.no_grad():
            for _, tensor in trunk.named_trainable():
                tensor.add_(1.0)
        after = segment_state(cache.get(wanted, folder, CUT))
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_keeps_adapters_base(self, folder: ModelFolder) -> None:
        cache = TrunkCache(CPU)
        assert cache.get(spec(), folder, CUT) is cache.get(spec(rounds=2), folder, CUT)

    def test_loads_anew_for_another_seed(self, folder: ModelFolder) -> None:
        cache = TrunkCache(CPU)
        assert cache.get(spec(), folder, CUT) is not cache.get(spec(seed=1), folder, CUT)
