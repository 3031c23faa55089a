"""The average of a trunk's replicas, as a pure function of what they contribute."""

from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.training import average_replicas, contribution, state_of_replica


def state(value: float | Tensor, **moments: float) -> dict[str, Tensor]:
    """One parameter of two numbers, and moments by their kind."""
    return {
        "parameter/w": torch.as_tensor(value, dtype=torch.float32) * torch.ones(2),
        **{f"optimizer/{kind}/w": torch.tensor(moment) for kind, moment in moments.items()},
    }


class TestParameters:
    def test_are_weighted_by_tokens(self) -> None:
        parts = [contribution(state(1.0), num_tokens=30), contribution(state(5.0), num_tokens=10)]
        assert torch.equal(
            average_replicas(parts, moments="averaged")["parameter/w"], torch.tensor([2.0, 2.0])
        )

    def test_of_a_replica_without_a_token_do_not_count(self) -> None:
        parts = [contribution(state(7.0), num_tokens=0), contribution(state(0.1), num_tokens=3)]
        assert torch.equal(
            average_replicas(parts, moments="averaged")["parameter/w"], state(0.1)["parameter/w"]
        )

    def test_that_nobody_moved_keep_every_bit(self) -> None:
        """Thirds and sevenths: weights that no binary number holds."""
        value = torch.rand(1000, generator=torch.Generator().manual_seed(1)) * 1e-3
        parts = [
            contribution({"parameter/w": value.clone()}, num_tokens=num_tokens)
            for num_tokens in (3, 7, 123_457, 1)
        ]
        assert torch.equal(average_replicas(parts, moments="averaged")["parameter/w"], value)

    def test_are_added_in_fp64(self) -> None:
        """In fp32 the small number would vanish beside the large ones."""
        parts = [contribution(state(value), num_tokens=1) for value in (1e8, 3.0, -1e8)]
        assert torch.equal(average_replicas(parts, moments="averaged")["parameter/w"], torch.ones(2))

    def test_of_a_round_without_a_token_stay(self) -> None:
        parts = [contribution(state(2.5, step=4.0), num_tokens=0) for _ in range(2)]
        average = average_replicas(parts, moments="averaged")
        assert set(average) == {"parameter/w", "optimizer/step/w"}
        assert torch.equal(average["parameter/w"], state(2.5)["parameter/w"])

    @pytest.mark.parametrize(
        "other",
        [{"parameter/v": torch.ones(2)}, {"parameter/w": torch.ones(3)}, {}],
        ids=["name", "shape", "none"],
    )
    def test_of_other_tensors_are_refused(self, other: dict[str, Tensor]) -> None:
        parts = [contribution(state(1.0), num_tokens=1), contribution(other, num_tokens=1)]
        with pytest.raises(
            StorageError, match=r"replica 1 .* other tensors than replica 0, first 'parameter/w'"
        ):
            average_replicas(parts, moments="kept")

    def test_of_no_contribution_are_refused(self) -> None:
        with pytest.raises(StorageError, match="does not say on how many tokens"):
            average_replicas([state(1.0), state(1.0)], moments="kept")


class TestMoments:
    PARTS: tuple[dict[str, Any], ...] = (
        {"num_tokens": 1, "exp_avg": 4.0, "step": 2.0},
        {"num_tokens": 3, "exp_avg": 8.0, "step": 5.0},
    )

    def parts(self) -> list[dict[str, Tensor]]:
        return [
            contribution(
                state(1.0, exp_avg=part["exp_avg"], step=part["step"]), num_tokens=part["num_tokens"]
            )
            for part in self.PARTS
        ]

    def test_are_averaged_and_the_largest_step_counts(self) -> None:
        average = average_replicas(self.parts(), moments="averaged")
        assert float(average["optimizer/exp_avg/w"]) == 7.0
        assert float(average["optimizer/step/w"]) == 5.0

    def test_that_were_not_begun_count_as_nought(self) -> None:
        parts = [contribution(state(1.0), num_tokens=1), self.parts()[1]]
        assert float(average_replicas(parts, moments="averaged")["optimizer/exp_avg/w"]) == 6.0

    def test_that_are_kept_stay_each_replicas_own(self) -> None:
        parts = self.parts()
        average = average_replicas(parts, moments="kept")
        assert set(average) == {"parameter/w"}
        own = state_of_replica(average, parts[1], moments="kept")
        assert set(own) == {"parameter/w", "optimizer/exp_avg/w", "optimizer/step/w"}
        assert float(own["optimizer/exp_avg/w"]) == 8.0

    def test_of_the_average_replace_a_replicas_own(self) -> None:
        parts = self.parts()
        own = state_of_replica(average_replicas(parts, moments="averaged"), parts[0], moments="averaged")
        assert float(own["optimizer/exp_avg/w"]) == 7.0
