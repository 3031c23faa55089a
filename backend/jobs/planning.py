"""What a job would need, from the model's manifest alone."""

from datetime import datetime

from sqlalchemy.orm import Session

from backend.db.models import Model, Project, Worker
from backend.jobs.schemas import PlanAnswer, RolePlan
from backend.parties.repository import online_workers
from backend.settings import Settings
from splitlearn.planning import (
    Cut,
    ModelFolder,
    ModelManifest,
    Role,
    estimate_memory,
    segment_sizes,
    wire_bytes_per_token,
)
from splitlearn.spec import JobSpec


def plan(session: Session, settings: Settings, spec: JobSpec, model: Model, *, now: datetime) -> PlanAnswer:
    """Return bytes per step, and memory per role."""
    manifest = ModelManifest.model_validate(model.manifest)
    folder = manifest.folder()
    organization_id = session.get_one(Project, model.project_id).organization_id
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    per_token = wire_bytes_per_token(
        folder.hidden_size, spec.codec, bottom_trains=spec.silo_blocks != "frozen"
    )
    tokens = spec.batch_size * spec.accumulation_steps * spec.max_tokens
    roles = [_role(folder, manifest, cut, role, spec) for role in Role]
    trunk = next(role for role in roles if role.role == Role.TRUNK.value)
    return PlanAnswer(
        model=f"{model.name}@sha256:{manifest.digest()}",
        wire_bytes_per_token=per_token,
        max_wire_bytes_per_step=per_token * tokens,
        total_steps=spec.total_steps,
        roles=roles,
        workers=sorted(
            worker.name
            for worker in online_workers(session, settings, organization_id, now=now)
            if _free_bytes(worker) >= trunk.total
        ),
    )


def _role(folder: ModelFolder, manifest: ModelManifest, cut: Cut, role: Role, spec: JobSpec) -> RolePlan:
    is_trunk = role is Role.TRUNK
    together = len(spec.silos) if is_trunk and spec.schedule == "client-batching" else 1
    memory = estimate_memory(
        folder,
        cut,
        role,
        adapter=spec.adapter,
        optimizer=spec.optimizer,
        batch_tokens=spec.batch_size * spec.max_tokens * together,
        trains=is_trunk or spec.silo_blocks != "frozen",
    )
    return RolePlan(
        role=role.value,
        num_layers=len(cut.layers(role)),
        num_parameters=segment_sizes(folder, cut)[role].num_parameters,
        download_bytes=sum(file.num_bytes for file in manifest.files_for([role], cut)),
        weights=memory.weights,
        gradients=memory.gradients,
        optimizer=memory.optimizer,
        activations=memory.activations,
        total=memory.total,
    )


def _free_bytes(worker: Worker) -> int:
    capabilities = worker.capabilities or {}
    return int(capabilities.get("device", {}).get("free_memory_bytes", 0))
