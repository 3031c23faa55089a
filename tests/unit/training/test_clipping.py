import math

import pytest
import torch
from torch import nn

from splitlearn.training import clip_coefficient, gradient_norms, scale_gradients, total_norm


def parameters(scale: float = 1.0, *, count: int = 13) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    made = [nn.Parameter(torch.zeros(5 + index, 7)) for index in range(count)]
    for parameter in made:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return made


class TestAgainstTorch:
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 37.0])
    @pytest.mark.parametrize("max_norm", [0.1, 1.0, 25.0])
    def test_scales_by_the_same_bits(self, scale: float, max_norm: float) -> None:
        ours, theirs = parameters(scale), parameters(scale)

        total = total_norm(gradient_norms(ours[:4]) + gradient_norms(ours[4:9]) + gradient_norms(ours[9:]))
        scale_gradients(ours, clip_coefficient(total, max_norm=max_norm))

        expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        assert total == float(expected)
        for left, right in zip(ours, theirs, strict=True):
            assert left.grad is not None
            assert right.grad is not None
            assert torch.equal(left.grad, right.grad)


class TestGradientNorms:
    def test_counts_a_missing_gradient_as_zero(self) -> None:
        made = parameters(count=2)
        made[0].grad = None
        assert gradient_norms(made)[0] == 0.0
        assert len(gradient_norms(made)) == 2

    def test_of_nothing_is_nothing(self) -> None:
        assert gradient_norms([]) == ()
        assert total_norm(()) == 0.0

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_total_shows_a_value_that_is_not_finite(self, value: float) -> None:
        made = parameters()
        assert made[5].grad is not None
        made[5].grad[0, 0] = value
        assert not math.isfinite(total_norm(gradient_norms(made)))
