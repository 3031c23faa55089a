"""Which round is the best, when a job is over, and what a checkpoint holds of it."""

import math
from typing import Any

import pytest
import torch

from splitlearn.errors import StorageError
from splitlearn.spec import EvaluationSpec
from splitlearn.tasks import LossSum
from splitlearn.training.best import Standing, split_standing

WATCHED = {"every_rounds": 1, "keep_best": True}


NAMES = ["north", "south"]


def told(north: float | None, south: float | None = None) -> dict[str, LossSum]:
    """Mean losses of two silos over 4 and 2 tokens; None is kept to itself."""
    losses = {"north": (north, 4), "south": (south, 2)}
    return {
        name: LossSum(0.0, 0) if loss is None else LossSum(loss * size, size)
        for name, (loss, size) in losses.items()
    }


def standing_after(losses: list[float | None], *, min_delta: float = 0.0) -> Standing:
    standing = Standing()
    for number, loss in enumerate(losses, start=1):
        standing = standing.after(number, told(loss), min_delta=min_delta)
    return standing


class TestStanding:
    @pytest.mark.parametrize(
        ("losses", "min_delta", "best", "num_without"),
        [
            ([3.0, 2.0, 1.0], 0.0, 3, 0),
            ([3.0, 1.0, 2.0, 1.0], 0.0, 2, 2),
            ([3.0, 2.9, 2.8], 0.15, 3, 0),
            ([3.0, 2.9, 2.8], 0.2, 1, 2),
            ([math.nan, 3.0, math.nan], 0.0, 2, 1),
            ([None, 3.0, None], 0.0, 2, 0),
            ([], 0.0, None, 0),
        ],
        ids=[
            "falls",
            "ties-are-the-earlier",
            "small-steps-add-up",
            "too-small",
            "diverged",
            "withheld",
            "none",
        ],
    )
    def test_follows_from_the_losses(
        self, losses: list[float | None], min_delta: float, best: int | None, num_without: int
    ) -> None:
        found = standing_after(losses, min_delta=min_delta)
        assert (found.best_round, found.num_without) == (best, num_without)

    @pytest.mark.parametrize(("patience", "is_over"), [(0, False), (1, True), (2, True), (3, False)])
    def test_ends_the_job_after_so_many_in_vain(self, *, patience: int, is_over: bool) -> None:
        spec = EvaluationSpec(every_rounds=1, patience_evaluations=patience)
        assert standing_after([1.0, 2.0, 2.0]).ends_the_job(spec) is is_over

    def test_knows_what_the_job_began_with_from_nothing_known(self) -> None:
        begun = Standing().after(0, told(2.0), min_delta=0.0)
        assert begun.best_round == 0
        assert split_standing(begun.state(NAMES), NAMES)[0] == begun
        diverged = Standing().after(0, told(math.nan), min_delta=0.0)
        assert split_standing(diverged.state(NAMES), NAMES)[0] == Standing(num_without=1)

    def test_weights_the_silos_by_their_tokens(self) -> None:
        standing = Standing().after(1, told(1.0, 4.0), min_delta=0.0)  # 12 / 6
        assert standing.after(2, told(1.5, 3.1), min_delta=0.0).best_round == 1  # 12.2 / 6
        assert standing.after(2, told(1.4, 3.1), min_delta=0.0).best_round == 2  # 11.8 / 6

    @pytest.mark.parametrize(("north", "best"), [(1.9, 2), (2.1, 1)])
    def test_compares_over_those_who_told_at_both_where_one_is_lost(self, north: float, best: int) -> None:
        """The mean of both was 1.67 when south, whose loss is low, was still there."""
        standing = Standing().after(1, told(2.0, 1.0), min_delta=0.0)
        assert standing.after(2, {"north": told(north)["north"]}, min_delta=0.0).best_round == best

    def test_begins_anew_where_nobody_is_left_of_those_who_told(self) -> None:
        standing = Standing().after(1, told(None, 1.0), min_delta=0.0)
        assert standing.after(2, told(9.0, None), min_delta=0.0) == Standing(2, {"north": LossSum(36.0, 4)})

    @pytest.mark.parametrize("losses", [[], [2.0, 1.0, 3.0], [math.nan]])
    def test_outlives_a_checkpoint(self, losses: list[float | None]) -> None:
        standing, weight = standing_after(losses), torch.ones(2)
        assert split_standing({**standing.state(NAMES), "w": weight}, NAMES) == (standing, {"w": weight})

    def test_that_cannot_be_is_refused(self) -> None:
        with pytest.raises(StorageError, match="record of the evaluations"):
            split_standing({"standing": torch.tensor([1.0, 2.0])}, NAMES)


class TestBestBlocks:
    def test_come_back_and_outlive_checkpoints_of_later_rounds(self, new_run: Any, same: Any) -> None:
        run, other = (new_run("llama-tied", evaluation=WATCHED) for _ in range(2))
        run.step(0)
        best = run.parameters()
        for party in (*run.silos, run.trunk):
            party.keep_best(1)
        run.step(1)
        for left, right in zip((*run.silos, run.trunk), (*other.silos, other.trunk), strict=True):
            right.load_state({key: value.clone() for key, value in left.state().items()})
            assert {key: value for key, value in right.state().items() if "best" in key}
            right.restore_best()
        same(other.parameters(), best)

    def test_may_be_those_that_the_job_began_with(self, new_run: Any, same: Any) -> None:
        run, other = (new_run("llama-tied", evaluation=WATCHED) for _ in range(2))
        begun = run.parameters()
        for party in (*run.silos, run.trunk):
            party.keep_best(0)
        run.step(0)
        for left, right in zip((*run.silos, run.trunk), (*other.silos, other.trunk), strict=True):
            right.load_state({key: value.clone() for key, value in left.state().items()})
            right.restore_best()
        same(other.parameters(), begun)

    def test_take_no_room_while_they_are_the_current_ones(self, new_run: Any, same: Any) -> None:
        run, other = (new_run("llama", evaluation=WATCHED) for _ in range(2))
        run.step(0)
        run.trunk.keep_best(1)
        state = {key: value.clone() for key, value in run.trunk.state().items()}
        assert [key for key in state if key.startswith("best/")] == ["best/round"]
        other.trunk.load_state(state)
        other.step(1)
        other.trunk.restore_best()
        same(
            {key: value for key, value in other.trunk.state().items() if key.startswith("parameter/")},
            {key: value for key, value in state.items() if key.startswith("parameter/")},
        )

    def test_of_others_are_refused(self, new_run: Any) -> None:
        run = new_run("llama", evaluation=WATCHED)
        run.trunk.keep_best(1)
        run.step(0)
        state = run.trunk.state()
        del state[next(key for key in state if key.startswith("best/parameter/"))]
        with pytest.raises(StorageError, match="the best round of other tensors"):
            run.trunk.load_state(state)

    def test_of_frozen_blocks_are_nothing(self, new_run: Any) -> None:
        run = new_run("llama", evaluation=WATCHED, silo_blocks="frozen")
        run.silos[0].keep_best(1)
        assert run.silos[0].state() == {}
