import pytest

from backend.jobs.experience import row_tokens, usual
from splitlearn.spec import JobSpec


class TestUsual:
    def test_first_steps_are_left_out(self) -> None:
        newest_first = [1.0, 1.2, 1.1, 1.1, 7.0, 8.0]
        assert usual(newest_first) == pytest.approx(1.1)

    def test_a_step_without_computing_was_not_measured(self) -> None:
        assert usual([0.0, 2.0]) == 2.0
        assert usual([0.0]) is None


class TestRowTokens:
    SPEC = JobSpec.parse(
        {"model": "m", "silos": [{"name": "a", "dataset": "d"}], "batch_size": 2, "accumulation_steps": 3}
    )

    def test_are_those_of_a_step_over_all_its_rows(self) -> None:
        assert row_tokens(self.SPEC, [6 * 30.0, 6 * 50.0]) == 40

    def test_are_never_more_than_the_limit(self) -> None:
        assert row_tokens(self.SPEC, [7.0 * self.SPEC.max_tokens]) == self.SPEC.max_tokens

    def test_of_no_step_are_not_known(self) -> None:
        assert row_tokens(self.SPEC, []) is None
