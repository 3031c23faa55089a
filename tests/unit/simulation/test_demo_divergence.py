"""A run whose losses are no numbers any more has failed, whatever else it reached."""

from dataclasses import replace

import pytest

from splitlearn.errors import TrainingError
from splitlearn.parties import Evaluated
from splitlearn.simulation.demo import _refuse_divergence
from splitlearn.simulation.results import SiloResult, SimulationResult
from splitlearn.spec import JobSpec
from splitlearn.tasks import DataReport


def result(loss: float) -> SimulationResult:
    spec = JobSpec.parse({"model": "tiny", "silos": [{"name": "north", "dataset": "notes"}]})
    silo = SiloResult(
        name="north",
        report=DataReport(*[1] * 10),
        steps=(),
        evaluations=(Evaluated("north", 1, loss, 5, None),),
        wire_bytes=0,
        eval_wire_bytes=0,
        resent_messages=0,
        artifact=None,
    )
    return SimulationResult(
        status="completed",
        spec=spec,
        threads=1,
        silos=(silo,),
        seconds_per_step=1.0,
        num_steps=10,
        peak_memory_bytes={"all": 1},
    )


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_is_refused_with_the_learning_rate(loss: float) -> None:
    with pytest.raises(TrainingError, match=r"after 10 steps at --learning-rate 0\.001"):
        _refuse_divergence(result(loss))


def test_a_number_is_not() -> None:
    _refuse_divergence(replace(result(1.5), num_steps=20))
