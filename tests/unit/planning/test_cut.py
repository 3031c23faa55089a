import pytest

from splitlearn.planning import Cut, CutError, Role


class TestLayers:
    @pytest.mark.parametrize(
        ("bottom", "top", "expected"),
        [
            (1, 2, ([0], [1, 2, 3], [4, 5])),
            (0, 0, ([], [0, 1, 2, 3, 4, 5], [])),
            (5, 0, ([0, 1, 2, 3, 4], [5], [])),
        ],
    )
    def test_are_dealt_out_in_order(self, bottom: int, top: int, expected: tuple[list[int], ...]) -> None:
        cut = Cut(bottom, top, 6)
        assert tuple(list(cut.layers(role)) for role in Role) == expected


class TestLimits:
    @pytest.mark.parametrize(("bottom", "top"), [(3, 3), (6, 0), (0, 7), (100, 100)])
    def test_the_trunk_keeps_a_layer(self, bottom: int, top: int) -> None:
        with pytest.raises(CutError, match=rf"{bottom} bottom \+ {top} top .* the model has 6 .* at most 5"):
            Cut(bottom, top, 6)

    def test_counts_are_not_negative(self) -> None:
        with pytest.raises(CutError, match="-1"):
            Cut(-1, 1, 6)
