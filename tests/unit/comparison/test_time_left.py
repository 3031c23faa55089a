import pytest

from splitlearn.comparison.time_left import Active, in_words, seconds_left


class TestSecondsLeft:
    def test_is_not_known_before_anything_is(self) -> None:
        assert seconds_left({}, [Active("serial", 0.1, 5)], ["serial"], parallel=2) is None

    def test_takes_runs_of_the_same_kind_for_a_measure(self) -> None:
        finished = {"serial": [10.0, 14.0], "alone": [3.0]}
        assert seconds_left(finished, [], ["serial", "alone", "alone"], parallel=1) == pytest.approx(
            12 + 3 + 3
        )

    def test_takes_any_run_where_none_is_of_the_kind(self) -> None:
        assert seconds_left({"alone": [3.0]}, [], ["serial"], parallel=2) == pytest.approx(3)

    def test_takes_off_what_is_done(self) -> None:
        assert seconds_left({}, [Active("serial", 0.5, 6)], ["serial"], parallel=1) == pytest.approx(6 + 12)

    def test_is_shared_by_runs_at_a_time(self) -> None:
        assert seconds_left({"alone": [4.0]}, [], ["alone"] * 4, parallel=2) == pytest.approx(8)


class TestInWords:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (None, ""),
            (20, "less than a minute left"),
            (200, "about 3 min left"),
            (9000, "about 2.5 h left"),
        ],
    )
    def test_are_rough(self, seconds: float | None, words: str) -> None:
        assert in_words(seconds) == words
