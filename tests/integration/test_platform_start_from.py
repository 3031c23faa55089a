"""Jobs that begin at earlier ones' results, every party its own process, one killed in the first round."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from splitlearn.simulation.demo_inputs import Inputs, Rows, plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions, name_of
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.spec import JobSpec, LoraAdapter
from splitlearn.tasks import SiloData, load_tokenizer, prepare_silo_data
from tests.integration.test_platform import _children, _federation, _tensors

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=3,
    silo_blocks="local",
    rounds=1,
    steps_per_round=6,
    batch_size=2,
    max_tokens=32,
    evaluation_rows=4,
    centralised=False,
)
LORA = LoraAdapter(r=4, freeze_a=True)
# Long enough for somebody to be killed in its first round.
LATER: dict[str, Any] = {"seed": 6, "rounds": 2, "steps_per_round": 16}
_ENDED = {"completed", "failed", "cancelled"}
_SECONDS = 120.0


@dataclass
class Stage:
    """A platform with three silos that has run its first job, and the same jobs in one process."""

    federation: PlatformFederation
    inputs: Inputs
    rows: Rows
    folder: Path

    @property
    def first_job(self) -> str:
        assert self.federation.job_id is not None
        return self.federation.job_id

    def submit(self, spec: JobSpec) -> str:
        """Submit a job on the registered model."""
        fields = spec.model_copy(update={"model": name_of(self.inputs.model_folder)}).model_dump(mode="json")
        job: dict[str, Any] = self.federation.control_plane.call("POST", "/jobs", {"spec": fields})
        return str(job["id"])

    def follow(self, job_id: str, *, in_first_round: Callable[[], None] | None = None) -> dict[str, Any]:
        """Wait for a job's end; do something once its first round has had a step."""
        deadline = time.monotonic() + _SECONDS
        while True:
            assert time.monotonic() < deadline, "the job does not end"
            job: dict[str, Any] = self.federation.control_plane.call("GET", f"/jobs/{job_id}")
            if job["state"] in _ENDED:
                assert in_first_round is None, "it ended before its first round was seen"
                return job
            if in_first_round is not None and self._has_steps(job_id):
                assert job["rounds_committed"] == 0
                in_first_round()
                in_first_round = None
            time.sleep(0.05)

    def _has_steps(self, job_id: str) -> bool:
        query = {"name": "loss"}
        page = self.federation.control_plane.call("GET", f"/jobs/{job_id}/metrics", query=query)
        return bool(page["items"])

    def results(self, job_id: str, spec: JobSpec) -> dict[str, dict[str, torch.Tensor]]:
        """Every silo's result, as its agent exports it."""
        found = {}
        for silo in spec.silos:
            target = self.folder / "exported" / job_id / silo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.federation.deployment.export(silo.name, job=job_id, target=target)
            found[silo.name] = _tensors(target)
        return found

    def in_process(self, spec: JobSpec, name: str) -> dict[str, dict[str, torch.Tensor]]:
        """The results of the same job over memory links; it begins at the folder of an earlier one."""
        folder = self.folder / "in-process" / name
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        result = simulate(
            spec,
            model_folder=self.inputs.model_folder,
            data=[self._data(spec, silo.name) for silo in spec.silos],
            work_dir=folder,
        )
        torch.set_num_threads(threads)
        return {silo.name: _tensors(silo.artifact) for silo in result.silos if silo.artifact is not None}

    def _data(self, spec: JobSpec, silo: str) -> SiloData:
        """A silo's rows as its agent makes them ready: what is held out follows from the job's seed."""
        return prepare_silo_data(
            self.rows.by_silo[silo],
            silo_name=silo,
            task=spec.task,
            tokenizer=load_tokenizer(self.inputs.model_folder),
            max_tokens=spec.max_tokens,
            holdout=spec.evaluation.holdout,
            seed=spec.seed,
        )

    def kill_worker(self) -> None:
        os.kill(self.federation.deployment.part_pid("worker-1"), signal.SIGKILL)

    def kill_job_process(self, silo: str) -> None:
        (forker,) = _children(self.federation.deployment.agent_pid(silo))
        for pid in _children(forker):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    spec = plan_job(OPTIONS)
    rows = read_rows(OPTIONS, spec)
    inputs = prepare_inputs(OPTIONS, rows, folder=None, models=tmp_path_factory.mktemp("models"))
    federation = _federation((inputs, rows), folder / "platform", None, keeps_running=True)
    federation.run()
    yield Stage(federation, inputs, rows, folder)
    federation.close()


def _assert_equal(
    ours: dict[str, dict[str, torch.Tensor]], theirs: dict[str, dict[str, torch.Tensor]]
) -> None:
    assert ours.keys() == theirs.keys()
    for silo, expected in theirs.items():
        assert ours[silo].keys() == expected.keys()
        assert all(torch.equal(ours[silo][name], expected[name]) for name in expected), silo


class TestFullModels:
    def test_end_as_in_one_process_also_where_the_worker_is_killed(self, stage: Stage) -> None:
        first = stage.inputs.spec
        expected = stage.in_process(first, "first")
        _assert_equal(stage.results(stage.first_job, first), expected)

        later = first.model_copy(update=LATER)
        job_id = stage.submit(later.model_copy(update={"start_from": stage.first_job}))
        job = stage.follow(job_id, in_first_round=stage.kill_worker)
        assert job["state"] == "completed", job["reason"]
        start = str(stage.folder / "in-process" / "first")
        again = stage.in_process(later.model_copy(update={"start_from": start}), "later")
        ours = stage.results(job_id, later)
        _assert_equal(ours, again)
        assert any(
            not torch.equal(ours[silo][name], expected[silo][name]) for silo in ours for name in ours[silo]
        )

    def test_a_silo_that_lost_its_result_refuses_before_the_first_step(self, stage: Stage) -> None:
        silo = stage.inputs.spec.silos[1].name
        result = stage.federation.deployment.agent_dir(silo) / "jobs" / stage.first_job / "result"
        moved = result.with_name("moved")
        shutil.move(result, moved)
        try:
            job_id = stage.submit(stage.inputs.spec.model_copy(update={"start_from": stage.first_job}))
            job = stage.follow(job_id)
        finally:
            shutil.move(moved, result)
        assert (job["state"], job["rounds_committed"]) == ("failed", 0)
        (told,) = (part for part in job["silos"] if part["approval"] == "refused")
        assert (told["name"], told["approval_code"]) == (silo, "start_gone")
        assert "its result of the job that this one begins at (start_from) is gone" in told["approval_reason"]


class TestAdapters:
    def test_end_as_in_one_process_also_with_a_newcomer_and_a_killed_silo(self, stage: Stage) -> None:
        """With frozen halves, which no checkpoint holds: whoever begins again begins at the same start."""
        spec = stage.inputs.spec.model_copy(update={"adapter": LORA})
        early = spec.model_copy(update={"silos": spec.silos[:2]})
        expected = stage.in_process(early, "early")
        first = stage.submit(early)
        assert stage.follow(first)["state"] == "completed"
        _assert_equal(stage.results(first, early), expected)

        later = spec.model_copy(update=LATER)
        job_id = stage.submit(later.model_copy(update={"start_from": first}))
        killed = spec.silos[0].name
        job = stage.follow(job_id, in_first_round=lambda: stage.kill_job_process(killed))
        assert job["state"] == "completed", job["reason"]
        start = str(stage.folder / "in-process" / "early")
        again = stage.in_process(later.model_copy(update={"start_from": start}), "with-newcomer")
        _assert_equal(stage.results(job_id, later), again)
        assert "approved" in {part["approval"] for part in job["silos"]}
