"""Silo blocks averaged by a secure sum, every party its own process, some of them killed in between."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splitlearn.simulation.demo_inputs import Inputs, Rows, plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.results import SimulationResult
from tests.integration.test_platform import Killer, _assert_same, _federation

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=3,
    silo_blocks="averaged",
    rounds=3,
    steps_per_round=4,
    batch_size=2,
    max_tokens=32,
    evaluation_rows=4,
    centralised=False,
)


def prepared(options: DemoOptions, models: Path) -> tuple[Inputs, Rows]:
    spec = plan_job(options)
    rows = read_rows(options, spec)
    return prepare_inputs(options, rows, folder=None, models=models), rows


def in_process(inputs: Inputs, folder: Path) -> SimulationResult:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return simulate(inputs.spec, model_folder=inputs.model_folder, data=inputs.data, work_dir=folder)
    finally:
        torch.set_num_threads(threads)


class TestPlatform:
    @pytest.mark.parametrize(
        "options",
        [
            OPTIONS,
            pytest.param(replace(OPTIONS, schedule="hierarchical", replicas=2), marks=pytest.mark.long),
        ],
        ids=["one-trunk", "replicas-in-turns"],
    )
    def test_averages_as_one_process_does_and_outlives_a_killed_agent_and_worker(
        self, options: DemoOptions, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        inputs, rows = prepared(options, tmp_path_factory.mktemp("models"))
        expected = in_process(inputs, tmp_path_factory.mktemp("in-process"))

        killer = Killer(inputs.spec.silos[1].name)
        federation = killer.federation = _federation((inputs, rows), tmp_path, killer)
        result = federation.run()

        assert killer.killed == ["agent", "worker"]
        _assert_same(result, expected)
        records = list(tmp_path.rglob("sums.json"))
        assert len(records) == 3
        assert all('"unfinished": null' in record.read_text() for record in records)
