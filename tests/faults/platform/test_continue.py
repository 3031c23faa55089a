"""A silo that dies for good, and a job that goes on without it: the same as with the recorded roster."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench.stage import OwnServer, Stage, StageInputs, make_inputs
from splitlearn.parties import Progress, RoundFinished
from splitlearn.simulation.federation import Federation, simulate
from splitlearn.spec import JobSpec

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 15.0
"""Longer than a step of a silo that lives, on a busy machine."""
ROUNDS, STEPS_PER_ROUND = 5, 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    folder = tmp_path_factory.mktemp("inputs")
    return make_inputs(folder, silos=3, rounds=ROUNDS, steps_per_round=STEPS_PER_ROUND)


@pytest.fixture
def stage(servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path: Path) -> Iterator[Stage]:
    database, broker = servers
    made = Stage(tmp_path / "stage", inputs, database=database, broker=broker)
    with made.running():
        yield made


def replay(
    inputs: StageInputs, spec: JobSpec, folder: Path, *, lost: str, after_round: int
) -> Mapping[str, Path]:
    """Train with the recorded roster in this process; return the results of those who are left."""
    runs: list[Federation] = []

    def stop(progress: Progress) -> None:
        if isinstance(progress, RoundFinished) and progress.round == after_round:
            runs[0].cancel()

    if after_round:
        whole = Federation(
            spec, model_folder=inputs.model_folder, data=inputs.data, work_dir=folder, on_progress=stop
        )
        runs.append(whole)
        with pytest.raises(asyncio.CancelledError):
            whole.run()
    result = simulate(
        spec,
        model_folder=inputs.model_folder,
        data=[data for data in inputs.data if data.name != lost],
        work_dir=folder,
        resume=bool(after_round),
        lost=[lost],
    )
    artifacts = {silo.name: silo.artifact for silo in result.silos}
    return {name: path for name, path in artifacts.items() if path is not None}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        found |= load_file(path)
    assert found
    return found


class TestLostForGood:
    def test_the_job_completes_as_one_with_the_recorded_roster(
        self, stage: Stage, inputs: StageInputs, tmp_path: Path
    ) -> None:
        spec = inputs.job(on_lost_silo="continue", patience_seconds=PATIENCE_SECONDS, min_silos=2)
        lost, *left = stage.silos
        job = stage.submit(spec)
        stage.wait_for_steps(STEPS_PER_ROUND + STEPS_PER_ROUND // 2)
        stage.kill(f"agent-{lost}")
        stage.wait_for_end(job)
        [event] = stage.events(job, "silo_lost")
        rosters = {event["round"]: tuple(event["silos"]) for event in stage.events(job, "round_committed")}
        assert rosters == {
            number: stage.silos if number <= event["after_round"] else tuple(left)
            for number in range(1, ROUNDS + 1)
        }
        recorded = replay(inputs, spec, tmp_path / "replay", lost=lost, after_round=event["after_round"])
        assert set(recorded) == set(left)
        for silo in left:
            ours, theirs = tensors(stage.result_folder(silo, job)), tensors(recorded[silo])
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
