from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from splitlearn.errors import StorageError
from splitlearn.spec import AdamWSpec, SGDSpec
from splitlearn.training import build_optimizer, set_learning_rate
from splitlearn.training.optimizer import load_optimizer_state, optimizer_state

SPECS = [AdamWSpec(weight_decay=0.1), SGDSpec(momentum=0.9, weight_decay=0.1), SGDSpec()]
SHAPES = [(17, 5), (3,), (64, 33), (1,), (31,)]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def train(groups: Sequence[Sequence[nn.Parameter]], spec: AdamWSpec | SGDSpec) -> list[Tensor]:
    """Five steps with one optimiser for each group."""
    generator = torch.Generator().manual_seed(4)
    optimizers = [build_optimizer(group, spec) for group in groups]
    everyone = [parameter for group in groups for parameter in group]
    for step in range(5):
        for parameter in everyone:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for optimizer in optimizers:
            set_learning_rate(optimizer, 0.01 * (step + 1))
            optimizer.step()
    return [parameter.detach() for parameter in everyone]


class TestBuildOptimizer:
    @pytest.mark.parametrize("spec", SPECS)
    def test_moves_tensors_alike_together_or_apart(self, spec: AdamWSpec | SGDSpec) -> None:
        whole, parts = parameters(), parameters()
        together = train([whole], spec)
        apart = train([parts[:2], parts[2:3], parts[3:]], spec)
        assert all(torch.equal(left, right) for left, right in zip(together, apart, strict=True))
        assert not torch.equal(together[0], parameters()[0])

    def test_is_adamw_as_torch_defines_it(self) -> None:
        reference = parameters()
        plain = torch.optim.AdamW(reference, lr=0.01, weight_decay=0.1, foreach=False, fused=False)
        ours = parameters()
        optimizer = build_optimizer(ours, AdamWSpec(weight_decay=0.1))
        set_learning_rate(optimizer, 0.01)
        for left, right in zip(ours, reference, strict=True):
            left.grad, right.grad = torch.ones_like(left), torch.ones_like(right)
        optimizer.step()
        plain.step()
        for left, right in zip(ours, reference, strict=True):
            torch.testing.assert_close(left, right)  # the fused kernel rounds in another order


class TestOptimizerState:
    @pytest.mark.parametrize("spec", SPECS)
    def test_returns_bit_for_bit(self, spec: AdamWSpec | SGDSpec) -> None:
        made = parameters()
        optimizer = build_optimizer(made, spec)
        for parameter in made:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        names = [(f"tensor.{index}", parameter) for index, parameter in enumerate(made)]
        saved = {key: value.clone() for key, value in optimizer_state(optimizer, names).items()}

        other = build_optimizer(made, spec)
        load_optimizer_state(other, names, saved)

        found = optimizer_state(other, names)
        assert found.keys() == saved.keys()
        assert all(torch.equal(found[key], value) for key, value in saved.items())

    @pytest.mark.parametrize("stranger", ["exp_avg/other", "exp_avg/tensor.1"])
    def test_refuses_a_tensor_that_fits_nothing(self, stranger: str) -> None:
        made = parameters()
        names = [(f"tensor.{index}", parameter) for index, parameter in enumerate(made)]
        optimizer = build_optimizer(made, AdamWSpec())
        with pytest.raises(StorageError, match=stranger):
            load_optimizer_state(optimizer, names, {stranger: torch.zeros(17, 5)})
