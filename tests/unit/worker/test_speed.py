import pytest

from splitlearn.planning import Rate, Speed
from worker.speed import trunk_tokens_per_second


def speed(*, layer_seconds: float, flops_per_second: float) -> Speed:
    return Speed(layer_seconds, (Rate(256, flops_per_second),), 1.0, 1.0)


def test_twice_as_fast_is_twice_the_number() -> None:
    slow, fast = (speed(layer_seconds=0.002 / factor, flops_per_second=1e9 * factor) for factor in (1, 2))
    assert trunk_tokens_per_second(fast) == pytest.approx(2 * trunk_tokens_per_second(slow))


def test_calls_count_beside_products() -> None:
    """Two layers of 12 x 256 x 256 weights, six operations for each and token: 9.4 million for a token."""
    found = trunk_tokens_per_second(speed(layer_seconds=1e-9, flops_per_second=6 * 2 * 12 * 256 * 256))
    assert found == pytest.approx(1.0)
    assert trunk_tokens_per_second(speed(layer_seconds=64, flops_per_second=1e15)) == pytest.approx(
        2, rel=0.01
    )
