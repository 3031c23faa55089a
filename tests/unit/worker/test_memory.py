import pytest
import torch

from splitlearn.control_plane.schemas import DeviceBody
from splitlearn.planning import Cut
from splitlearn.planning.manifest import ModelManifest
from splitlearn.spec import JobSpec
from worker.memory import (
    Demand,
    TrunkTooLargeError,
    explain_out_of_memory,
    is_out_of_memory,
    refuse_too_large,
)

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 32,
}
TENSOR = {"dtype": "F32", "shape": [64, 64], "num_bytes": 16384}


def demand(**fields: object) -> Demand:
    files = [
        {
            "name": f"layer-{number:05d}.safetensors",
            "digest": "0" * 64,
            "num_bytes": 20_000,
            "tensors": {f"model.layers.{number}.self_attn.q_proj.weight": TENSOR},
        }
        for number in range(4)
    ]
    manifest = ModelManifest.model_validate(
        {
            "source": "s",
            "family": "llama",
            "num_layers": 4,
            "hidden_size": 64,
            "num_parameters": 0,
            "num_bytes": 0,
            "config": CONFIG,
            "companions": [],
            "files": files,
        }
    )
    base = {"model": "m", "silos": [{"name": "a", "dataset": "a"}], "adapter": {"kind": "full"}}
    spec = JobSpec.parse({**base, "batch_size": 8, "max_tokens": 16, **fields})
    return Demand(spec, manifest.folder(), Cut(bottom_layers=1, top_layers=1, num_layers=4))


def device(total: int) -> DeviceBody:
    return DeviceBody(kind="cuda", name="H1", total_memory_bytes=total, free_memory_bytes=total)


class TestRefuseTooLarge:
    def test_passes_what_may_fit(self) -> None:
        needed = demand().estimate()
        refuse_too_large(demand(), device(needed.total - needed.activations))

    def test_refuses_what_cannot(self) -> None:
        needed = demand().estimate()
        with pytest.raises(TrunkTooLargeError, match=r"the trunk needs .* GiB .* H1 has"):
            refuse_too_large(demand(), device(needed.total - needed.activations - 1))


class TestWhatFits:
    def test_names_the_largest_half_of_the_batch(self) -> None:
        room = demand().estimate(batch_size=4).total
        assert demand().what_fits(room) == "batch_size 4 instead of 8 would fit"

    def test_names_fewer_layers_where_no_batch_helps(self) -> None:
        room = demand().estimate(batch_size=1, num_layers=1).total
        assert "1 instead of 2 layers" in demand().what_fits(room)

    def test_says_when_nothing_helps(self) -> None:
        assert "take a worker with more memory" in demand().what_fits(10)

    def test_silos_in_turns_need_less_than_together(self) -> None:
        silos = [{"name": name, "dataset": name} for name in ("a", "b")]
        together = demand(silos=silos).estimate().activations
        assert demand(silos=silos, schedule="serial").estimate().activations == together // 2


class TestOutOfMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            MemoryError(),
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"),
        ],
    )
    def test_is_known_on_every_device(self, error: Exception) -> None:
        assert is_out_of_memory(error)

    def test_other_errors_are_not(self) -> None:
        assert not is_out_of_memory(RuntimeError("shape mismatch"))

    def test_says_what_would_fit(self) -> None:
        room = demand().estimate(batch_size=4).total
        assert "batch_size 4 instead of 8" in explain_out_of_memory(demand(), device(room)).message
