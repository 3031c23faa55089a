import statistics

import pytest

from splitlearn.comparison.intervals import mean_interval, quantile


class TestMeanInterval:
    def test_of_nothing_is_none(self) -> None:
        assert mean_interval([]) is None

    def test_of_one_value_has_no_ends(self) -> None:
        found = mean_interval([3.0])
        assert found is not None
        assert (found.mean, found.low, found.high) == (3.0, None, None)

    def test_of_equal_values_has_no_width(self) -> None:
        found = mean_interval([2.0] * 5)
        assert found is not None
        assert (found.mean, found.low, found.high) == (2.0, 2.0, 2.0)

    def test_of_two_values_takes_all_four_draws(self) -> None:
        # Means 0, 1/2, 1/2, 1: at 2.5 % of the way from the first to the last of four, 0.075 * 1/2.
        found = mean_interval([0.0, 1.0])
        assert found is not None
        assert found.low == pytest.approx(0.0375)
        assert found.high == pytest.approx(0.9625)

    def test_of_many_values_is_near_the_normal_interval(self) -> None:
        # 100 values of variance 833.25: standard error 2.887, so 95 % lie within 5.66 of the mean; 20,000
        # draws tell an end to about 0.06, three times of which is allowed.
        found = mean_interval([float(value) for value in range(100)])
        assert found is not None
        assert found.mean == 49.5
        assert found.low == pytest.approx(49.5 - 5.66, abs=0.2)
        assert found.high == pytest.approx(49.5 + 5.66, abs=0.2)

    def test_repeats(self) -> None:
        values = [statistics.fmean([value, 1.0]) for value in range(9)]
        assert mean_interval(values) == mean_interval(values)


class TestQuantile:
    @pytest.mark.parametrize(("share", "value"), [(0, 1.0), (1, 3.0), (0.5, 2.0), (0.25, 1.5)])
    def test_lies_between_neighbours_in_proportion(self, share: float, value: float) -> None:
        assert quantile([1.0, 2.0, 3.0], share) == value
