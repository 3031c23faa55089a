"""What a job would need and how long it would take: from the model's manifest, and what parties told."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session

from backend.db.models import Project, Worker
from backend.jobs.choosing import able_workers
from backend.jobs.needs import need_of
from backend.jobs.overview import worker_view
from backend.jobs.placing import Need, what_lacks
from backend.jobs.schemas import LayersPlan, PlanAnswer, RolePlan, ScheduleAnswer, WorkerPlan
from backend.jobs.submission import Checked
from backend.jobs.surroundings import surroundings_of
from backend.parties.repository import online_workers
from backend.settings import Settings
from splitlearn.planning import (
    Cut,
    DeviceMemory,
    LayerRange,
    ModelFolder,
    ModelManifest,
    PlacementError,
    Role,
    Training,
    estimate_memory,
    lay_trunk,
    predict,
    segment_sizes,
    wire_bytes_per_token,
)
from splitlearn.spec import JobSpec


class Lay(Protocol):
    """Lays the trunk's layers over devices."""

    def __call__(self, devices: Sequence[DeviceMemory], *, on_heap: bool) -> Sequence[LayerRange]:
        """Return the ranges; see ``splitlearn.planning.lay_trunk``."""


def plan(session: Session, settings: Settings, checked: Checked, *, now: datetime) -> PlanAnswer:
    """Return seconds and bytes of a step, and memory per role.

    Args:
        session: Of the database.
        settings: Which workers count as online.
        checked: The job, its schedule chosen.
        now: The server's time.
    """
    spec, model = checked.spec, checked.model
    manifest = ModelManifest.model_validate(model.manifest)
    folder = manifest.folder()
    organization_id = session.get_one(Project, model.project_id).organization_id
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    per_token = wire_bytes_per_token(
        folder.hidden_size, spec.codec, bottom_trains=spec.silo_blocks != "frozen"
    )
    roles = [_role(folder, manifest, cut, role, spec) for role in Role]
    need = need_of(manifest, spec)
    workers = able_workers(session, settings, spec, manifest, checked.silos, now=now)
    known = surroundings_of(session, spec, checked.silos, workers)
    prediction = predict(spec, folder, cut, known.around)
    assumptions = [*known.assumptions, *_of_replicas(spec, max(1, len(workers)))]

    def lay(devices: Sequence[DeviceMemory], *, on_heap: bool) -> Sequence[LayerRange]:
        return lay_trunk(folder, cut, Training.of(spec, Role.TRUNK, on_heap=on_heap), devices)

    placements = [
        _placement(worker, need, lay)
        for worker in online_workers(session, settings, organization_id, now=now)
    ]
    return PlanAnswer(
        model=f"{model.name}@sha256:{manifest.digest()}",
        schedule=ScheduleAnswer(
            asked=checked.asked_schedule or spec.schedule,
            chosen=spec.schedule,
            replicas=spec.replicas,
            reason=checked.schedule_reason,
        ),
        wire_bytes_per_token=per_token,
        wire_bytes_per_step=prediction.step_bytes,
        max_wire_bytes_per_step=prediction.max_step_bytes,
        wire_bytes_per_sum=prediction.sum_bytes,
        sums_per_round=prediction.sums_per_round,
        total_steps=spec.total_steps,
        seconds_per_step=prediction.step_seconds,
        silo_seconds_per_step=prediction.silo_seconds,
        trunk_seconds_per_step=prediction.trunk_seconds,
        seconds_per_round=prediction.round_seconds,
        assumptions=assumptions,
        notes=list(checked.notes),
        roles=roles,
        workers=[found.name for found in placements if found.lacks is None],
        placements=placements,
    )


def _of_replicas(spec: JobSpec, num_workers: int) -> Iterator[str]:
    if spec.replicas == 1:
        return
    yield (
        f"{spec.replicas} replicas take turns at {num_workers} worker{'' if num_workers == 1 else 's'}"
        if num_workers < spec.replicas
        else f"each of {spec.replicas} replicas has a worker of its own"
    )
    yield "handing replicas out, loading their trunks and averaging them come on top, once per round"


def _role(folder: ModelFolder, manifest: ModelManifest, cut: Cut, role: Role, spec: JobSpec) -> RolePlan:
    memory = estimate_memory(folder, cut, role, Training.of(spec, role))
    return RolePlan(
        role=role.value,
        num_layers=len(cut.layers(role)),
        num_parameters=segment_sizes(folder, cut)[role].num_parameters,
        download_bytes=sum(file.num_bytes for file in manifest.files_for([role], cut)),
        weights=memory.weights,
        gradients=memory.gradients,
        optimizer=memory.optimizer,
        activations=memory.activations,
        logits=memory.logits,
        caches=memory.caches,
        best=memory.best,
        total=memory.total,
    )


def _placement(worker: Worker, need: Need, lay: Lay) -> WorkerPlan:
    """Say where a worker would lay the trunk's layers, by the memory that it has told of."""
    lack = what_lacks(worker_view(worker), need)
    if lack is not None:
        return WorkerPlan(name=worker.name, lacks=lack, layers=[])
    devices = [
        DeviceMemory(device.get("id") or device["kind"], int(device["free_memory_bytes"]))
        for device in worker.devices
    ]
    try:
        on_heap = any(device["kind"] == "cpu" for device in worker.devices)
        ranges = lay(devices, on_heap=on_heap) if devices else ()
    except PlacementError as error:
        return WorkerPlan(name=worker.name, lacks=error.message, layers=[])
    return WorkerPlan(
        name=worker.name, lacks=None, layers=[LayersPlan.model_validate(part) for part in ranges]
    )
