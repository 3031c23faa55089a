"""A platform that goes on running, every part a process, and jobs on it beside the same in one process."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splitlearn.simulation.demo_inputs import Inputs, Rows, plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions, name_of
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.results import SiloResult, SimulationResult
from splitlearn.spec import JobSpec
from splitlearn.tasks import SiloData, load_tokenizer, prepare_silo_data
from tests.integration.test_platform import _children, _federation, _tensors

Tensors = dict[str, torch.Tensor]

_ENDED = {"completed", "failed", "cancelled"}
_SECONDS = 180.0
_OF_A_ROUND = -1


@dataclass
class PlatformJobs:
    """A platform that has run its first job.

    Attributes:
        federation: The platform.
        inputs: Of the first job.
        rows: Every silo's.
        folder: For results.
    """

    federation: PlatformFederation
    inputs: Inputs
    rows: Rows
    folder: Path

    @property
    def spec(self) -> JobSpec:
        """The first job."""
        return self.inputs.spec

    @property
    def first_job(self) -> str:
        """Its id."""
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
            if in_first_round is not None and self.numbers(job_id, "loss"):
                assert job["rounds_committed"] == 0
                in_first_round()
                in_first_round = None
            # Every question takes the job some 25 ms of the cores.
            time.sleep(0.5 if in_first_round is None else 0.05)

    def run(self, spec: JobSpec) -> str:
        """Run a job to its end."""
        job_id = self.submit(spec)
        job = self.follow(job_id)
        assert job["state"] == "completed", job["reason"]
        return job_id

    def numbers(self, job_id: str, name: str) -> list[dict[str, Any]]:
        """Return what parties told under a name."""
        page = self.federation.control_plane.call("GET", f"/jobs/{job_id}/metrics", query={"name": name})
        found: list[dict[str, Any]] = page["items"]
        return found

    def evaluated(self, job_id: str, name: str, silo: str) -> dict[int, float]:
        """Return a number of a silo's evaluations, by round."""
        return {
            each["round"]: each["value"]
            for each in self.numbers(job_id, name)
            if each["party"] == f"silo:{silo}" and each["step"] == _OF_A_ROUND
        }

    def results(self, job_id: str, spec: JobSpec) -> dict[str, Tensors]:
        """Every silo's result, as its agent exports it."""
        found = {}
        for silo in spec.silos:
            target = self.folder / "exported" / job_id / silo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                self.federation.deployment.export(silo.name, job=job_id, target=target)
            found[silo.name] = _tensors(target)
        return found

    def in_process(self, spec: JobSpec, name: str) -> SimulationResult:
        """Run the same job over memory links."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return simulate(
                spec,
                model_folder=self.inputs.model_folder,
                data=[self._data(spec, silo.name) for silo in spec.silos],
                work_dir=self.folder / "in-process" / name,
            )
        finally:
            torch.set_num_threads(threads)

    def assert_equal(self, job_id: str, expected: SimulationResult) -> None:
        """Compare a job's results and evaluations with the same job in one process: every bit."""
        ours = self.results(job_id, expected.spec)
        for silo in expected.silos:
            theirs = self.tensors(silo)
            assert ours[silo.name].keys() == theirs.keys()
            differing = [name for name in theirs if not torch.equal(ours[silo.name][name], theirs[name])]
            assert not differing, (silo.name, differing)
            losses = {each.round: each.loss for each in silo.evaluations}
            assert self.evaluated(job_id, "eval_loss", silo.name) == losses

    def tensors(self, silo: SiloResult) -> Tensors:
        """A silo's result in one process."""
        assert silo.artifact is not None
        return _tensors(silo.artifact)

    def kill_worker(self) -> None:
        """Kill the worker; once."""
        os.kill(self.federation.deployment.part_pid("worker-1"), signal.SIGKILL)

    def kill_job_process(self, silo: str) -> None:
        """Kill what a silo trains with."""
        (forker,) = _children(self.federation.deployment.agent_pid(silo))
        for pid in _children(forker):
            os.kill(pid, signal.SIGKILL)

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


@contextmanager
def platform_jobs(options: DemoOptions, folder: Path) -> Iterator[PlatformJobs]:
    """Start a platform and run its first job."""
    spec = plan_job(options)
    rows = read_rows(options, spec)
    inputs = prepare_inputs(options, rows, folder=None, models=folder / "models")
    federation = _federation((inputs, rows), folder / "platform", None, keeps_running=True)
    federation.run()
    try:
        yield PlatformJobs(federation, inputs, rows, folder)
    finally:
        federation.close()
