import pytest

from splitlearn.spec import LearningRateSpec
from splitlearn.training import learning_rate


def rates(total_steps: int = 12, **fields: object) -> list[float]:
    spec = LearningRateSpec.model_validate({"peak": 1.0, **fields})
    return [learning_rate(spec, step=step, total_steps=total_steps) for step in range(total_steps)]


class TestLearningRate:
    def test_is_constant_by_default(self) -> None:
        assert rates() == [1.0] * 12

    def test_warms_up_in_equal_increments_and_never_from_zero(self) -> None:
        assert rates(warmup_steps=3)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]

    def test_linear_decay_ends_with_the_floor_at_the_last_step(self) -> None:
        assert rates(3, decay="linear", floor=0.5) == [1.0, 0.75, 0.5]

    def test_cosine_decay_is_half_way_in_the_middle(self) -> None:
        assert rates(3, decay="cosine") == pytest.approx([1.0, 0.5, 0.0], abs=1e-15)

    def test_decay_begins_after_the_warm_up(self) -> None:
        assert rates(4, decay="linear", warmup_steps=1) == [0.5, 1.0, 0.5, 0.0]

    def test_stays_at_the_floor_after_the_last_step(self) -> None:
        spec = LearningRateSpec(peak=1.0, decay="linear", floor=0.25)
        assert learning_rate(spec, step=99, total_steps=10) == 0.25

    @pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
    def test_survives_a_warm_up_as_long_as_the_job(self, decay: str) -> None:
        assert rates(3, warmup_steps=2, decay=decay)[-1] == 1.0
        assert max(rates(3, warmup_steps=9, decay=decay)) < 1.0
