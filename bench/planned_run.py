"""Child process: a job on a real platform, and what ``trunkline jobs plan`` said of it.

A first job lets the control plane learn how fast the silos are. Then the second one is planned, as its
author would plan it, and run.
"""

import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.cases import synthetic_records
from bench.child import end_with_parent, serve
from bench.federation_run import FederationRequest, make_data
from bench.platform_job import platform_environment
from splitlearn.errors import TrainingError
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.spec import JobSpec

_LOOK_SECONDS = 1.0
_PAGE = 1000


class PlannedRequest(BaseModel):
    """What is planned and trained.

    Attributes:
        first: The job from which the control plane learns speeds.
        second: The job that is planned.
        model_folder: The model of both.
        vocab_size: Of the model.
        warm_ups: Steps of each silo in the second job that do not count.
        min_tokens: Of the shortest rows; None for rows of ``max_tokens``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: JobSpec
    second: JobSpec
    model_folder: Path
    vocab_size: int
    warm_ups: int = 3
    min_tokens: int | None = None


class PlannedAnswer(BaseModel):
    """What the plan said, and what it came to.

    Attributes:
        step_seconds: Of the trunk's steps that count, as the silos told.
        step_bytes: Of one silo, both directions.
        planned_step_seconds: ``seconds_per_step`` of the plan.
        planned_step_bytes: ``wire_bytes_per_step`` of the plan.
        assumptions: What the plan took for known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_seconds: tuple[float, ...]
    step_bytes: float
    planned_step_seconds: float
    planned_step_bytes: float
    assumptions: tuple[str, ...]


def run(request: PlannedRequest) -> PlannedAnswer:
    """Start a platform, learn, plan, train, and stop it."""
    end_with_parent()
    rows = synthetic_records(request.first, vocab_size=request.vocab_size, min_tokens=request.min_tokens)
    asked = FederationRequest(
        spec=request.first, model_folder=request.model_folder, vocab_size=request.vocab_size
    )
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
        federation = PlatformFederation(
            request.first,
            model_folder=request.model_folder,
            data=make_data(asked),
            rows={silo.name: rows for silo in request.first.silos},
            work_dir=Path(folder),
            threads=1,
            environment=platform_environment(),
            keeps_running=True,
        )
        try:
            federation.run()
            return _plan_and_train(request, federation.control_plane, str(federation.job_id))
        finally:
            federation.close()


def _plan_and_train(request: PlannedRequest, control_plane: ControlPlane, first: str) -> PlannedAnswer:
    # Under the name that the model was registered by.
    model = control_plane.call("GET", f"/jobs/{first}")["spec"]["model"]
    spec = request.second.model_copy(update={"model": model}).model_dump(mode="json")
    planned = control_plane.call("POST", "/jobs/plan", {"spec": spec})
    job_id = control_plane.call("POST", "/jobs", {"spec": spec})["id"]
    while (job := control_plane.call("GET", f"/jobs/{job_id}"))["state"] != "completed":
        if job["state"] in {"failed", "cancelled"}:
            raise TrainingError(f"the planned job ended as {job['state']}: {job['reason']}; see its log")
        time.sleep(_LOOK_SECONDS)
    seconds = list(_numbers(control_plane, job_id, "seconds"))
    wire = [item["value"] for item in _numbers(control_plane, job_id, "wire_bytes")]
    return PlannedAnswer(
        step_seconds=tuple(_counted(request, seconds)),
        step_bytes=statistics.fmean(wire) / request.second.steps_per_round,
        planned_step_seconds=planned["seconds_per_step"],
        planned_step_bytes=planned["wire_bytes_per_step"],
        assumptions=tuple(planned["assumptions"]),
    )


def _counted(request: PlannedRequest, seconds: Iterable[Mapping[str, Any]]) -> Iterable[float]:
    """Return the seconds of each step that counts; where silos share a step, the longest."""
    longest: dict[int, float] = {}
    for item in seconds:
        longest[item["step"]] = max(item["value"], longest.get(item["step"], 0.0))
    per_turn = request.second.steps_per_round
    return [value for step, value in sorted(longest.items()) if step % per_turn >= request.warm_ups]


def _numbers(control_plane: ControlPlane, job_id: str, name: str) -> list[Mapping[str, Any]]:
    query = {"name": name, "limit": _PAGE}
    page = control_plane.call("GET", f"/jobs/{job_id}/metrics", query=query)
    return [item for item in page["items"] if item["party"].startswith("silo:")]


if __name__ == "__main__":
    serve(PlannedRequest, run)
