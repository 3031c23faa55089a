"""Padded batches, and the plan of which rows make them up."""

import pytest
import torch

from splitlearn.partition import PaddingSide
from splitlearn.tasks import IGNORED, BatchPlan, TokenRow, collate, concatenate_batches

LONG = TokenRow((5, 6, 7), (IGNORED, 6, 7))
SHORT = TokenRow((8, 9), (8, 9))
PAD = 0


def numbered(count: int) -> list[TokenRow]:
    return [TokenRow((n, n + 1), (n, n + 1)) for n in range(count)]


def plan(rows: int, *, batch_size: int = 4, seed: int = 0, silo_name: str = "a") -> BatchPlan:
    return BatchPlan(numbered(rows), batch_size=batch_size, seed=seed, silo_name=silo_name, pad_token_id=PAD)


class TestCollate:
    def test_pads_on_the_right(self) -> None:
        batch = collate([LONG, SHORT], pad_token_id=PAD)
        assert batch.input_ids_BT.tolist() == [[5, 6, 7], [8, 9, PAD]]
        assert batch.labels_BT.tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
        assert batch.layout.lengths == (3, 2)
        assert batch.layout.padding_side == "right"

    def test_pads_on_the_left(self) -> None:
        batch = collate([LONG, SHORT], pad_token_id=PAD, padding_side="left")
        assert batch.input_ids_BT.tolist() == [[5, 6, 7], [PAD, 8, 9]]
        assert batch.labels_BT.tolist() == [[IGNORED, 6, 7], [IGNORED, IGNORED, 9]]

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_label_tokens_are_those_of_the_rows(self, side: PaddingSide) -> None:
        batch = collate([LONG, SHORT], pad_token_id=PAD, padding_side=side)
        assert batch.num_label_tokens == LONG.num_label_tokens + SHORT.num_label_tokens == 3

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_layout_marks_the_tokens(self, side: PaddingSide) -> None:
        batch = collate([LONG, SHORT], pad_token_id=PAD, padding_side=side)
        assert batch.layout.pack(batch.input_ids_BT).tolist() == [5, 6, 7, 8, 9]

    def test_types(self) -> None:
        batch = collate([LONG], pad_token_id=PAD)
        assert batch.input_ids_BT.dtype == batch.labels_BT.dtype == torch.int64

    def test_no_rows(self) -> None:
        batch = collate([], pad_token_id=PAD)
        assert batch.input_ids_BT.shape == (0, 0)
        assert batch.num_label_tokens == 0

    def test_repr_shows_no_token(self) -> None:
        batch = collate([TokenRow((77, 78), (77, 78))], pad_token_id=PAD)
        assert repr(batch) == "TokenBatch(1 rows, 2 positions, 2 valid)"


class TestConcatenateBatches:
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_is_the_batch_of_all_rows(self, side: PaddingSide) -> None:
        parts = [collate([row], pad_token_id=PAD, padding_side=side) for row in (SHORT, LONG, SHORT)]
        joined = concatenate_batches(parts, pad_token_id=PAD)
        whole = collate([SHORT, LONG, SHORT], pad_token_id=PAD, padding_side=side)
        assert torch.equal(joined.input_ids_BT, whole.input_ids_BT)
        assert torch.equal(joined.labels_BT, whole.labels_BT)
        assert joined.layout == whole.layout

    def test_a_silo_without_rows_adds_none(self) -> None:
        empty, full = collate([], pad_token_id=PAD), collate([LONG], pad_token_id=PAD)
        joined = concatenate_batches([empty, full], pad_token_id=PAD)
        assert joined.input_ids_BT.tolist() == [[5, 6, 7]]


class TestBatchPlan:
    def test_every_epoch_is_a_permutation(self) -> None:
        made = plan(12)
        epochs = [[n for i in range(3) for n in made.row_numbers(3 * epoch + i)] for epoch in range(3)]
        assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
        assert epochs[0] != epochs[1] != epochs[2] != list(range(12))

    def test_batches_are_full_across_epochs(self) -> None:
        made = plan(10)
        numbers = [n for i in range(5) for n in made.row_numbers(i)]
        assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))

    def test_fewer_rows_than_a_batch_holds(self) -> None:
        numbers = plan(3, batch_size=8).row_numbers(0)
        assert [sorted(numbers[:3]), sorted(numbers[3:6])] == [[0, 1, 2], [0, 1, 2]]
        assert len(numbers) == 8

    def test_order_of_asking_does_not_matter(self) -> None:
        forward, backward = plan(10), plan(10)
        there = [forward.row_numbers(i) for i in range(30)]
        back = [backward.row_numbers(i) for i in reversed(range(30))]
        assert there == back[::-1]

    def test_known_batches(self) -> None:
        assert [plan(10).row_numbers(i) for i in (0, 2, 1000)] == KNOWN_BATCHES

    def test_depends_on_seed_and_silo(self) -> None:
        orders = {made.row_numbers(0) for made in (plan(99), plan(99, seed=1), plan(99, silo_name="b"))}
        assert len(orders) == 3

    def test_batch_holds_the_rows(self) -> None:
        made = plan(10)
        assert made.batch(2).input_ids_BT[:, 0].tolist() == list(made.row_numbers(2))

    def test_padding_side_is_kept(self) -> None:
        made = BatchPlan(
            [LONG, SHORT], batch_size=2, seed=0, silo_name="a", pad_token_id=PAD, padding_side="left"
        )
        assert [PAD, 8, 9] in made.batch(0).input_ids_BT.tolist()


KNOWN_BATCHES = [(0, 8, 7, 9), (3, 2, 1, 6), (6, 0, 2, 4)]
