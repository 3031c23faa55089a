import pytest

from backend.jobs.surroundings import speed_by_step
from splitlearn.planning import NOMINAL_SPEED
from splitlearn.spec import JobSpec
from tests.unit.backend.jobs.conftest import make_manifest

SPEC = JobSpec.parse({"model": "tiny", "silos": [{"name": "north", "dataset": "notes"}]})


def test_twice_the_time_is_half_the_speed() -> None:
    quick, slow = (speed_by_step(SPEC, make_manifest(), seconds) for seconds in (1.0, 2.0))
    assert quick is not None
    assert slow is not None
    assert slow.layer_seconds == pytest.approx(2 * quick.layer_seconds)
    assert slow.rates[0].flops_per_second == pytest.approx(quick.rates[0].flops_per_second / 2)
    assert slow.message_seconds == NOMINAL_SPEED.message_seconds


def test_a_step_without_computing_tells_nothing() -> None:
    assert speed_by_step(SPEC, make_manifest(), 0.0) is None
