import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.comparison.axes import Axis, axis_over, labels_of

VALUES = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda value: round(value, 6))


class TestAxis:
    @given(st.lists(VALUES, min_size=1, max_size=9))
    def test_shows_every_value_within_its_places(self, values: list[float]) -> None:
        axis = axis_over(values, begin=50, end=650)
        assert all(50 <= axis.place(value) <= 650 for value in values)

    @given(st.lists(VALUES, min_size=1, max_size=9))
    def test_has_a_few_ticks_that_lie_on_it(self, values: list[float]) -> None:
        axis = axis_over(values, begin=650, end=50)
        ticks = axis.ticks()
        room = (axis.high - axis.low) * 1e-6
        assert 1 <= len(ticks) <= 6
        assert all(axis.low - room <= tick <= axis.high + room for tick in ticks)
        assert list(ticks) == sorted(set(ticks))

    def test_reaches_zero_where_it_must(self) -> None:
        assert axis_over([3.0, 4.0], begin=0, end=1, with_zero=True).low < 0

    @pytest.mark.parametrize(
        ("low", "high", "labels"),
        [
            (0, 1, ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
            (0, 2000, ("0", "500", "1000", "1500", "2000")),
            (1.61, 1.67, ("1.62", "1.64", "1.66")),
            (-3, 12, ("-2.5", "0.0", "2.5", "5.0", "7.5", "10.0")),
        ],
    )
    def test_labels_have_no_digit_too_many(self, low: float, high: float, labels: tuple[str, ...]) -> None:
        assert labels_of(Axis(low, high, 0, 1).ticks()) == labels
