import pytest
import torch

from splitlearn.control_plane.schemas import DeviceBody
from splitlearn.planning import Cut, DeviceMemory
from splitlearn.planning.manifest import ModelManifest
from splitlearn.spec import JobSpec
from worker.memory import (
    Demand,
    TrunkTooLargeError,
    explain_out_of_memory,
    is_out_of_memory,
    lay_over,
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


def device(total: int, name: str = "cuda:0") -> DeviceBody:
    return DeviceBody(id=name, kind="cuda", name="H1", total_memory_bytes=total, free_memory_bytes=total)


def room(*free_bytes: int) -> list[DeviceMemory]:
    return [DeviceMemory(f"cuda:{index}", free) for index, free in enumerate(free_bytes)]


class TestRefuseTooLarge:
    def test_passes_what_may_fit(self) -> None:
        refuse_too_large(demand(), [device(demand().estimate().lasting)])

    def test_refuses_what_cannot(self) -> None:
        with pytest.raises(TrunkTooLargeError, match=r"the trunk needs .* GiB .* H1 has"):
            refuse_too_large(demand(), [device(demand().estimate().lasting - 1)])

    def test_counts_all_devices(self) -> None:
        half = demand().estimate().lasting // 2 + 1
        refuse_too_large(demand(), [device(half), device(half, "cuda:1")])


class TestLayOver:
    def test_takes_one_device_where_one_is_enough(self) -> None:
        (only,) = lay_over(demand(), room(demand().estimate().total, 1 << 40))
        assert (only.first_layer, only.last_layer) == (1, 2)

    def test_lays_a_larger_trunk_over_two(self) -> None:
        needed = demand().estimate().total - 1
        found = lay_over(demand(), room(needed, needed))
        assert [(part.device, list(part.layers)) for part in found] == [("cuda:0", [1]), ("cuda:1", [2])]
        assert all(part.num_bytes <= part.free_bytes == needed for part in found)

    def test_says_which_layers_do_not_fit_and_what_would(self) -> None:
        small = demand().estimate(batch_size=4).total
        with pytest.raises(TrunkTooLargeError) as caught:
            lay_over(demand(), room(small))
        assert caught.value.message.startswith("layers 1 to 2 of the trunk need")
        assert caught.value.message.endswith("batch_size 4 instead of 8 would fit")


class TestWhatFits:
    def test_names_the_largest_half_of_the_batch(self) -> None:
        found = demand().what_fits(room(demand().estimate(batch_size=4).total))
        assert found == "batch_size 4 instead of 8 would fit"

    def test_names_fewer_layers_where_no_batch_helps(self) -> None:
        free = demand().estimate(batch_size=1, num_layers=1).total
        assert "1 instead of 2 layers" in demand().what_fits(room(free))

    def test_says_when_nothing_helps(self) -> None:
        assert "take a worker with more memory" in demand().what_fits(room(10))

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
        total = demand().estimate(batch_size=4).total
        assert "batch_size 4 instead of 8" in explain_out_of_memory(demand(), [device(total)]).message
