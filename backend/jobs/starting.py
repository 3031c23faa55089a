"""A job that begins at an earlier one's result: found, compared and kept for it when it is submitted."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.artifacts.repository import lock_blob
from backend.db.models import Artifact, ArtifactKind, Job, JobSilo, JobState, Project, Silo
from backend.jobs.errors import SpecRefusedError
from backend.settings import Settings
from splitlearn.spec import JobSpec, LoraAdapter, is_job_id
from splitlearn.spec_defaults import BeginsWith

ARTIFACT_NAME = "start"
"""What a job's reference to the trunk that it begins at is called."""

_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Start:
    """An earlier job with a result.

    Attributes:
        job: The job.
        spec: Its specification.
        result: Its trunk's trained tensors.
        silos: Those of its roster that have a result of their own.
    """

    job: Job
    spec: JobSpec
    result: Artifact
    silos: frozenset[str]

    def begins_with(self, fields: Mapping[str, Any]) -> BeginsWith:
        """Return what silo blocks become that a specification, not yet parsed, leaves open."""
        silos = fields.get("silos")
        found = [silo for silo in silos if isinstance(silo, Mapping)] if isinstance(silos, list) else []
        names = [str(silo.get("name")) for silo in found]
        why = _why_unequal(self, names=names, is_lora=isinstance(self.spec.adapter, LoraAdapter))
        return BeginsWith(self.spec.silo_blocks, why)


def find_start(
    session: Session, fields: Mapping[str, Any], project: Project, *, now: datetime, lock: bool
) -> Start | None:
    """Return the earlier job that a specification names; None where it names none, or no job's id.

    Args:
        session: The transaction.
        fields: The specification, not yet parsed.
        project: Where both jobs belong.
        now: The server's time.
        lock: The result is not removed before the transaction ends.

    Raises:
        SpecRefusedError: There is no such job, or it has no result.
    """
    job_id = fields.get("start_from")
    if not isinstance(job_id, str) or not is_job_id(job_id):
        return None  # what is wrong with it, the specification's own checks say
    job = session.get(Job, uuid.UUID(job_id))
    if job is None or job.project_id != project.id:
        raise SpecRefusedError(
            f"start_from: project {project.name!r} has no job {job_id}; give the id of a completed job of it"
        )
    if job.state is not JobState.COMPLETED:
        raise SpecRefusedError(
            f"start_from: job {job_id} is {job.state.value}; begin at one that is completed"
        )
    return Start(
        job, JobSpec.parse(job.spec_bytes), _result(session, job, now=now, lock=lock), _silos(session, job)
    )


def _result(session: Session, job: Job, *, now: datetime, lock: bool) -> Artifact:
    result = None if job.result_id is None else session.get(Artifact, job.result_id)
    if result is not None and lock:
        # Retention removes the reference, then, under this lock, the blob: what is there now, stays.
        lock_blob(session, result.digest)
        result = session.scalars(
            select(Artifact).where(Artifact.id == result.id).execution_options(populate_existing=True)
        ).one_or_none()
    if result is None or (result.expires_at is not None and result.expires_at <= now):
        raise SpecRefusedError(
            f"start_from: the result of job {job.id} is no longer kept; begin at a newer one"
        )
    return result


def _silos(session: Session, job: Job) -> frozenset[str]:
    query = (
        select(Silo.name)
        .join(JobSilo, JobSilo.silo_id == Silo.id)
        .where(JobSilo.job_id == job.id, JobSilo.finish_outcome == _COMPLETED)
    )
    return frozenset(session.scalars(query).all())


def refuse_unfit(spec: JobSpec, start: Start) -> None:
    """Refuse to begin at a result of another model, cut or adapter, or with blocks that could not go on.

    Args:
        spec: The later job, its model pinned.
        start: The earlier one.

    Raises:
        SpecRefusedError: Names what differs, and both values.
    """
    before = start.spec
    told = {
        "model": (before.model, spec.model, _digest(before) == _digest(spec)),
        "silos.cut": (
            before.silos[0].cut.model_dump(),
            spec.silos[0].cut.model_dump(),
            before.silos[0].cut == spec.silos[0].cut,
        ),
        "adapter": (_shape(before), _shape(spec), _shape(before) == _shape(spec)),
    }
    for name, (theirs, ours, is_equal) in told.items():
        if not is_equal:
            raise SpecRefusedError(
                f"start_from: job {start.job.id} has {name} {theirs}, this one {ours}; give the same"
            )
    if spec.silo_blocks == "frozen":
        _refuse_left_out_adapters(spec, start)
    elif spec.silo_blocks == "averaged":
        _refuse_unequal_blocks(spec, start)


def _refuse_left_out_adapters(spec: JobSpec, start: Start) -> None:
    """Frozen blocks carry no adapter: one that was trained would be lost."""
    cut = spec.silos[0].cut
    has_adapters = isinstance(spec.adapter, LoraAdapter) and bool(cut.bottom_layers or cut.top_layers)
    if has_adapters and start.spec.silo_blocks != "frozen":
        raise SpecRefusedError(
            f"start_from: job {start.job.id} has trained adapters of the silos' blocks (silo_blocks "
            f"{start.spec.silo_blocks!r}), which 'frozen' blocks would lose; use 'local' or 'averaged'"
        )


def _refuse_unequal_blocks(spec: JobSpec, start: Start) -> None:
    """Only equal blocks can be averaged: the sum is of what they change since."""
    reason = _why_unequal(
        start, names=[silo.name for silo in spec.silos], is_lora=isinstance(spec.adapter, LoraAdapter)
    )
    if reason:
        raise SpecRefusedError(
            f"start_from: {reason}, so the silos begin with blocks that differ, and only equal ones can be "
            "averaged; use silo_blocks 'local'"
        )


def _why_unequal(start: Start, *, names: Sequence[str], is_lora: bool) -> str:
    """Return why these silos would begin with unlike blocks; empty where they are equal."""
    before = start.spec
    if before.silo_blocks == "frozen" and (before.start_from is None or is_lora):
        return ""  # everybody's are the base model's
    if before.silo_blocks != "averaged":
        return f"job {start.job.id} has silo_blocks {before.silo_blocks!r}"
    newcomer = next((name for name in names if name not in start.silos), None)
    return "" if newcomer is None else f"silo {newcomer!r} has no result of job {start.job.id}"


def keep_start(session: Session, settings: Settings, job: Job, start: Start, *, now: datetime) -> None:
    """Refer to the earlier result for a job that begins at it: it may outlive its own job's retention."""
    session.add(
        Artifact(
            project_id=job.project_id,
            job_id=job.id,
            kind=ArtifactKind.RESULT,
            name=ARTIFACT_NAME,
            digest=start.result.digest,
            num_bytes=start.result.num_bytes,
            created_at=now,
            expires_at=now + timedelta(days=settings.result_days),
        )
    )
    session.flush()


def start_of(session: Session, job: Job) -> Artifact | None:
    """Return the trunk that a job begins at; None where it begins at its model, or it is no longer kept."""
    if _earlier_job(job.spec_bytes) is None:
        return None
    query = select(Artifact).where(Artifact.job_id == job.id, Artifact.name == ARTIFACT_NAME)
    return session.scalars(query.limit(1)).one_or_none()


def has_result_of_start(session: Session, job: Job, silo_id: uuid.UUID) -> bool:
    """Whether a silo has a result of its own of the job that this one begins at. Never changes."""
    earlier = _earlier_job(job.spec_bytes)
    if earlier is None:
        return False
    part = session.get(JobSilo, (earlier, silo_id))
    return part is not None and part.finish_outcome == _COMPLETED


@lru_cache(maxsize=4096)
def _earlier_job(spec_bytes: bytes) -> uuid.UUID | None:
    found = json.loads(spec_bytes).get("start_from")
    return None if found is None else uuid.UUID(found)


def _digest(spec: JobSpec) -> str:
    return spec.model.rpartition(":")[2]


def _shape(spec: JobSpec) -> dict[str, Any]:
    """Return what two adapters must have in common."""
    fields = spec.adapter.model_dump(mode="json")
    shape: dict[str, Any] = {name: fields[name] for name in ("kind", "r", "alpha") if name in fields}
    return {**shape, "targets": sorted(fields["targets"])} if "targets" in fields else shape
