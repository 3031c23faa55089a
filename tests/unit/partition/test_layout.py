import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.errors import DataError
from splitlearn.partition import BatchLayout, PaddingSide

layouts = st.builds(
    lambda lengths, side, extra: BatchLayout(tuple(lengths), side, max(lengths, default=0) + extra),
    st.lists(st.integers(1, 6), max_size=4),
    st.sampled_from(["left", "right"]),
    st.integers(0, 3),
)


class TestPacking:
    @given(layouts)
    def test_returns_every_token_to_its_cell_and_zero_to_pads(self, layout: BatchLayout) -> None:
        hidden_BTD = torch.rand(layout.num_rows, layout.width, 3) + 1
        packed_ND = layout.pack(hidden_BTD)
        restored_BTD = layout.unpack(packed_ND)
        assert packed_ND.shape == (sum(layout.lengths), 3)
        assert torch.equal(restored_BTD, hidden_BTD * layout.valid()[..., None])

    @given(layouts)
    def test_keeps_rows_in_order(self, layout: BatchLayout) -> None:
        rows_BT = torch.arange(layout.num_rows).reshape(-1, 1).expand(-1, layout.width)
        expected = [row for row, length in enumerate(layout.lengths) for _ in range(length)]
        assert layout.pack(rows_BT).tolist() == expected

    def test_places_pads_at_the_side(self) -> None:
        assert BatchLayout((2, 3), "right").attention_mask().tolist() == [[1, 1, 0], [1, 1, 1]]
        assert BatchLayout((2, 3), "left", 4).attention_mask().tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]

    def test_gives_pads_no_gradient(self) -> None:
        layout = BatchLayout((1, 2))
        hidden_BTD = torch.ones(2, 2, 1, requires_grad=True)
        torch.autograd.backward(layout.unpack(layout.pack(hidden_BTD) * 3).sum())
        assert hidden_BTD.grad is not None
        assert hidden_BTD.grad.flatten().tolist() == [3, 0, 3, 3]

    def test_refuses_another_number_of_tokens(self) -> None:
        with pytest.raises(DataError, match="4 packed tokens were given for a layout of 3"):
            BatchLayout((1, 2)).unpack(torch.zeros(4, 8))

    def test_refuses_another_width(self) -> None:
        with pytest.raises(DataError, match=r"\(2, 3\).*\(2, 2\)"):
            BatchLayout((1, 2)).pack(torch.zeros(2, 3, 8))


class TestConcatenate:
    def test_packs_like_its_parts_one_after_the_other(self) -> None:
        parts = [BatchLayout((2, 1)), BatchLayout(()), BatchLayout((4,), width=5)]
        whole = BatchLayout.concatenate(parts)
        packed_N = torch.arange(7)
        assert whole == BatchLayout((2, 1, 4), "right", 5)
        assert whole.unpack(packed_N)[1].tolist() == [2, 0, 0, 0, 0]

    def test_of_nothing_has_no_rows(self) -> None:
        assert BatchLayout.concatenate([]) == BatchLayout(())

    def test_refuses_mixed_sides(self) -> None:
        with pytest.raises(DataError, match="left and right"):
            BatchLayout.concatenate([BatchLayout((1,), "left"), BatchLayout((1,), "right")])


class TestLimits:
    @pytest.mark.parametrize(
        ("lengths", "side", "width", "message"),
        [
            ((2, 0), "right", 0, "row 1 of the batch has no token"),
            ((2, 5), "right", 4, "has 5 tokens, its padded width is 4"),
            ((2,), "middle", 0, "'middle'"),
        ],
    )
    def test_refuses(self, lengths: tuple[int, ...], side: PaddingSide, width: int, message: str) -> None:
        with pytest.raises(DataError, match=message):
            BatchLayout(lengths, side, width)
