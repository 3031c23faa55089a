from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from splitlearn.training import StepKey, derive_seed, dropout_seed, seeded
from splitlearn.training.seeding import has_active_dropout

KEY = StepKey(seed=1, round=2, step=3, micro_batch=4)


def masks(module: nn.Module, key: StepKey = KEY, *, party: str = "clinic") -> Tensor:
    with seeded(module, key, segment="bottom", party=party):
        drawn: Tensor = module(torch.ones(1000))
    return drawn


class TestDeriveSeed:
    def test_has_not_changed(self) -> None:
        assert derive_seed("dropout", 1, "trunk") == 298315919856766056  # parties of two versions agree

    def test_fits_63_bits(self) -> None:
        assert all(0 <= derive_seed(number) < 1 << 63 for number in range(100))

    def test_tells_kind_order_and_grouping_apart(self) -> None:
        seeds = {derive_seed(*parts) for parts in [(1, 2), (2, 1), (12,), ("1", 2), ("1", "2"), ("12",), ()]}
        assert len(seeds) == 7


class TestDropoutSeed:
    def test_depends_on_every_part(self) -> None:
        keys = [KEY, StepKey(9, 2, 3, 4), StepKey(1, 9, 3, 4), StepKey(1, 2, 9, 4), StepKey(1, 2, 3, 9)]
        seeds = {dropout_seed(key, "bottom", "clinic") for key in keys}
        seeds |= {dropout_seed(KEY, "top", "clinic"), dropout_seed(KEY, "bottom", "lab")}
        assert len(seeds) == 7


class TestSeeded:
    def test_draws_the_same_masks_for_the_same_key(self) -> None:
        layer = nn.Dropout(0.5)
        torch.rand(3)
        first = masks(layer)
        torch.rand(7)
        assert torch.equal(first, masks(layer))
        assert not torch.equal(first, masks(layer, party="lab"))

    def test_puts_the_callers_random_state_back_even_after_an_error(self) -> None:
        layer = nn.Dropout(0.5)
        state = torch.get_rng_state()
        masks(layer)
        with (
            pytest.raises(RuntimeError, match="invalid for input of size 5"),
            seeded(layer, KEY, segment="top", party="clinic"),
        ):
            torch.rand(5).view(7)
        assert torch.equal(state, torch.get_rng_state())

    def test_leaves_random_numbers_alone_where_nothing_draws(self) -> None:
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        with seeded(nn.Dropout(0.5).eval(), KEY, segment="top", party="clinic"):
            assert torch.equal(torch.rand(1), expected)

    def test_threads_do_not_disturb_each_other(self) -> None:
        layer = nn.Sequential(*(nn.Dropout(0.01) for _ in range(20)))
        parties = [f"silo-{index}" for index in range(8)]
        alone = [masks(layer, party=party) for party in parties]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda party: masks(layer, party=party), parties * 4))
        assert all(torch.equal(left, right) for left, right in zip(alone * 4, together, strict=True))


class TestHasActiveDropout:
    def test_finds_layers_deep_inside(self) -> None:
        assert has_active_dropout(nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(0.1))))

    def test_finds_probabilities_kept_as_numbers(self) -> None:
        module = nn.Linear(1, 1)
        assert not has_active_dropout(module)
        module.attention_dropout = 0.1  # type: ignore[assignment]
        assert has_active_dropout(module)

    @pytest.mark.parametrize("module", [nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.Linear(1, 1)])
    def test_finds_none_in_zero_evaluation_or_without(self, module: nn.Module) -> None:
        assert not has_active_dropout(module)
