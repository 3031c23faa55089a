import numpy as np
import pytest
import torch
from torch import nn

from splitlearn.errors import StorageError
from splitlearn.training.averaging import AveragedBlocks, without_average


def parameters() -> list[tuple[str, nn.Parameter]]:
    return [("bottom", nn.Parameter(torch.tensor([1.0, 2.0]))), ("top", nn.Parameter(torch.tensor([[3.0]])))]


def move(named: list[tuple[str, nn.Parameter]], by: float) -> None:
    with torch.no_grad():
        for _, parameter in named:
            parameter.add_(by)


class TestAveragedBlocks:
    def test_tell_what_changed_since_the_last_average(self) -> None:
        named = parameters()
        blocks = AveragedBlocks(named)
        move(named, 0.5)
        assert [(name, change.tolist()) for name, change in blocks.changes()] == [
            ("bottom", [0.5, 0.5]),
            ("top", [[0.5]]),
        ]
        assert blocks.num_words == 3
        blocks.take(np.array([0.25, 0.125, -1.0]))
        assert [parameter.tolist() for _, parameter in named] == [[1.25, 2.125], [[2.0]]]
        assert not any(change.any() for _, change in blocks.changes())

    def test_are_the_same_bits_wherever_the_mean_is_taken_over(self) -> None:
        """Each silo adds the mean to what all had, not to its own blocks."""
        left, right = parameters(), parameters()
        averages = [AveragedBlocks(left), AveragedBlocks(right)]
        move(left, 0.1)
        move(right, -0.7)
        for blocks in averages:
            blocks.take(np.array([1 / 3, 1e-9, 2 / 3]))
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(left, right, strict=True))

    def test_count_the_tokens_of_steps_that_stand(self) -> None:
        blocks = AveragedBlocks(parameters())
        blocks.count(5)
        blocks.count(7)
        blocks.uncount()
        assert blocks.num_tokens == 5
        blocks.count(0)  # skipped
        blocks.uncount()
        assert blocks.num_tokens == 5
        blocks.take(np.zeros(3))
        assert blocks.num_tokens == 0

    def test_are_not_in_a_checkpoint_right_after_an_average(self) -> None:
        named = parameters()
        blocks = AveragedBlocks(named)
        assert blocks.state() == {}
        move(named, 1.0)
        assert blocks.state() != {}
        blocks.take(np.zeros(3))
        assert blocks.state() == {}

    def test_outlive_a_sum_that_was_given_up(self) -> None:
        """What was not averaged counts in the next sum, also after a restart."""
        named = parameters()
        blocks = AveragedBlocks(named)
        move(named, 0.5)
        blocks.count(9)
        saved = {key: value.clone() for key, value in blocks.state().items()}
        again = parameters()
        move(again, 0.5)
        loaded = AveragedBlocks(again)
        loaded.load_state({"parameter/bottom": again[0][1], **saved})
        assert loaded.num_tokens == 9
        assert [change.tolist() for _, change in loaded.changes()] == [[0.5, 0.5], [[0.5]]]
        assert without_average({"parameter/bottom": again[0][1], **saved}).keys() == {"parameter/bottom"}

    def test_begin_at_a_checkpoint_that_holds_an_average(self) -> None:
        named = parameters()
        blocks = AveragedBlocks(named)
        move(named, 0.5)
        blocks.count(9)
        move(named, 4.0)  # what a checkpoint of the parameters puts there
        blocks.load_state({})
        assert blocks.num_tokens == 0
        assert not any(change.any() for _, change in blocks.changes())

    def test_refuse_the_base_of_other_tensors(self) -> None:
        with pytest.raises(StorageError, match="the last average of other tensors"):
            AveragedBlocks(parameters()).load_state({"average/base/bottom": torch.zeros(2)})
