"""A silo with little data takes as many steps as the others, on full batches, over its few rows again."""

from typing import Any

import pytest

from splitlearn.parties import StepDone
from splitlearn.simulation.centralised import train_centralised
from tests.integration.conftest import Heard, NewJob, assert_same, silo_rows

NUM_STEPS = 6
SHAPE: dict[str, Any] = {"rounds": 2, "steps_per_round": NUM_STEPS // 2, "batch_size": 4}


@pytest.mark.parametrize("num_rows", [1, 3], ids=["one row", "fewer than a batch"])
@pytest.mark.parametrize("schedule", ["client-batching", "serial"])
def test_every_silo_takes_all_its_steps_on_full_batches(
    schedule: str, num_rows: int, new_job: NewJob
) -> None:
    little, much = silo_rows("little", num_rows=num_rows), silo_rows("much")
    job = new_job("llama", little, much, schedule=schedule, **SHAPE)
    heard = Heard(StepDone)
    job.run(on_progress=heard)
    for data in (little, much):
        steps = [step for step in heard.reports if step.silo == data.name]
        assert len(steps) == NUM_STEPS
        assert all(step.applied for step in steps)
    # Batches are dealt without end: over whole epochs every row was read as often as any other.
    read = sum(step.num_valid_tokens for step in heard.reports if step.silo == "little")
    tokens = sum(len(row.input_ids) for row in little.training)
    assert read == NUM_STEPS * SHAPE["batch_size"] / num_rows * tokens


def test_one_silo_with_one_row_trains_as_the_uncut_model(new_job: NewJob) -> None:
    job = new_job("llama", silo_rows("alone", num_rows=1), **SHAPE)
    result = job.run()
    reference = train_centralised(job.spec, job.folder, job.data)
    assert result.eval_loss == reference.eval_loss
    assert_same(job.trained("alone"), reference.state)
