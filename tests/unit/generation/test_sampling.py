import math

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from splitlearn.generation import Chooser, GenerationOptions, GenerationOptionsError, Sampling
from splitlearn.generation.sampling import filtered


def logits(num_rows: int = 4) -> torch.Tensor:
    return 3 * torch.randn(num_rows, 67, generator=torch.Generator().manual_seed(5))


class TestFilters:
    @pytest.mark.parametrize("top_k", [1, 5, 1000])
    def test_top_k_is_the_librarys(self, top_k: int) -> None:
        ids = torch.zeros(4, 1, dtype=torch.int64)
        expected = TopKLogitsWarper(min(top_k, 67))(ids, logits())
        assert torch.equal(filtered(logits(), Sampling(top_k=top_k)), expected)

    @pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 1.0])
    def test_top_p_is_the_librarys(self, top_p: float) -> None:
        ids = torch.zeros(4, 1, dtype=torch.int64)
        expected = TopPLogitsWarper(top_p)(ids, logits())
        found = filtered(logits(), Sampling(top_p=top_p))
        assert torch.equal(found > -math.inf, expected > -math.inf)

    def test_apply_in_order(self) -> None:
        ids = torch.zeros(4, 1, dtype=torch.int64)
        expected = TemperatureLogitsWarper(0.7)(ids, logits())
        expected = TopPLogitsWarper(0.8)(ids, TopKLogitsWarper(9)(ids, expected))
        found = filtered(logits(), Sampling(temperature=0.7, top_k=9, top_p=0.8))
        assert torch.equal(found > -math.inf, expected > -math.inf)
        assert (found > -math.inf).sum(dim=-1).max() <= 9


class TestChooser:
    def test_is_greedy_without_sampling(self) -> None:
        found = Chooser(None, num_rows=4).choose(logits())
        assert torch.equal(found, logits().argmax(dim=-1))

    def test_of_almost_no_temperature_is_greedy(self) -> None:
        found = Chooser(Sampling(temperature=1e-4), num_rows=4).choose(logits())
        assert torch.equal(found, logits().argmax(dim=-1))

    def test_repeats_itself_by_its_seed(self) -> None:
        def draws(seed: int) -> list[list[int]]:
            chooser = Chooser(Sampling(seed=seed), num_rows=4)
            return [chooser.choose(logits()).tolist() for _ in range(8)]

        assert draws(1) == draws(1)
        assert draws(1) != draws(2)

    def test_draws_for_a_row_whatever_the_others_are(self) -> None:
        many, few = Chooser(Sampling(seed=3), num_rows=4), Chooser(Sampling(seed=3), num_rows=2)
        for _ in range(8):
            assert many.choose(logits())[:2].tolist() == few.choose(logits()[:2]).tolist()

    def test_draws_as_often_as_the_model_says(self) -> None:
        probabilities = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
        chooser = Chooser(Sampling(seed=0), num_rows=1)
        drawn = [chooser.choose(probabilities.log()).item() for _ in range(2000)]
        # Four standard deviations of a share of 2,000 draws: 4 * sqrt(0.25 / 2000).
        for token, probability in enumerate(probabilities[0].tolist()):
            assert abs(drawn.count(token) / 2000 - probability) < 0.045


class TestOptions:
    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"temperature": 0.0}, "temperature is 0"),
            ({"temperature": math.nan}, "temperature is nan"),
            ({"top_k": 0}, "top_k is 0"),
            ({"top_p": 0.0}, "top_p is 0"),
            ({"top_p": 1.5}, "top_p is 1.5"),
            ({"seed": -1}, "seed is -1"),
        ],
    )
    def test_of_sampling_are_checked(self, fields: dict[str, float], said: str) -> None:
        with pytest.raises(GenerationOptionsError, match=said) as caught:
            Sampling(**fields)  # type: ignore[arg-type]
        assert caught.value.code == "generation_options"

    @pytest.mark.parametrize("number", [0, -3, 1 << 20])
    def test_of_length_are_checked(self, number: int) -> None:
        with pytest.raises(GenerationOptionsError, match="max_new_tokens"):
            GenerationOptions(max_new_tokens=number)
