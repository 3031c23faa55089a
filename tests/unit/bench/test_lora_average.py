import pytest
import torch

from bench.lora_average import products_apart

TRUNK = "layers.1.q_proj"
SILO = "layers.0.q_proj"


def adapter(seed: int, *, freeze_a: bool) -> dict[str, torch.Tensor]:
    """One silo's: its own layer, and the trunk's, which is the same everywhere."""
    own, common = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    first = torch.randn(2, 4, generator=common)
    return {
        f"{TRUNK}.lora_A.weight": first,
        f"{TRUNK}.lora_B.weight": torch.ones(4, 2),
        f"{SILO}.lora_A.weight": first if freeze_a else torch.randn(2, 4, generator=own),
        f"{SILO}.lora_B.weight": torch.randn(4, 2, generator=own),
    }


class TestProductsApart:
    def test_are_the_same_where_a_is(self) -> None:
        distances = products_apart([adapter(seed, freeze_a=True) for seed in range(3)])
        assert distances == {SILO: pytest.approx(0, abs=1e-14)}

    def test_are_not_where_both_were_trained(self) -> None:
        distances = products_apart([adapter(seed, freeze_a=False) for seed in range(3)])
        assert distances.keys() == {SILO}
        assert distances[SILO] > 0.1

    def test_of_one_silo_are_its_own(self) -> None:
        assert products_apart([adapter(0, freeze_a=False)]) == {}
