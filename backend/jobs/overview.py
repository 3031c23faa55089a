"""What deciding needs to know of every active job, read at once: a few queries for all of them."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import (
    Generation,
    GenerationState,
    Job,
    JobSilo,
    JobState,
    Lease,
    PartyStatus,
    Project,
    Silo,
    Worker,
)
from backend.jobs.decisions import JobView, LeaseView, ReplicaView, SiloView
from backend.jobs.needs import NEEDS
from backend.jobs.placing import WorkerView
from backend.jobs.replicas import committed_rounds, layout_of
from backend.jobs.state import HOSTED, WANTS_SILOS
from backend.parties.repository import online_workers
from backend.settings import Settings
from splitlearn.errors import SpecError
from splitlearn.spec import JobSpec

_log = structlog.get_logger("backend.reconciler")
_SEND_AGAIN_SECONDS = 3.0
"""A task that nobody took up for so long is sent again: the broker may forget, and twice does no harm."""
_ACTIVE = (JobState.SUBMITTED, *WANTS_SILOS)


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that has not ended, and what was said of it last.

    Attributes:
        project_served_at: When a job of its project gave a worker back last.
        served_at: When it did so itself.
    """

    id: uuid.UUID
    organization_id: uuid.UUID
    project: uuid.UUID
    reason_code: str
    view: JobView
    project_served_at: datetime | None = None
    served_at: datetime | None = None


def active_jobs(session: Session, *, only: uuid.UUID | None = None) -> list[ActiveJob]:
    """Return every job that has not ended, oldest first; or one, if it has not.

    Args:
        session: Of the database.
        only: The one that is asked about.
    """
    which = (Job.state.in_(_ACTIVE),) if only is None else (Job.state.in_(_ACTIVE), Job.id == only)
    jobs = session.execute(
        select(
            Job.id, Job.state, Job.desired, Job.state_since, Job.updated_at, Job.reason_code, Job.spec_bytes,
            Job.project_id, Job.model_id, Project.organization_id, Project.served_at,
        )
        .join(Project, Project.id == Job.project_id)
        .where(*which)
        .order_by(Job.created_at, Job.id)
    ).all()  # fmt: skip
    if not jobs:
        return []
    # By the jobs that were found: joined with jobs, the parts of all there ever were would be read.
    ids = [job.id for job in jobs]
    silos, leases = _silos(session, ids), _leases(session, ids)
    committed = _committed(session, jobs)
    found: list[ActiveJob] = []
    for job in jobs:
        lease = leases[job.id].get(0)
        try:
            view = _view(session, job, silos[job.id], leases[job.id], committed.get(job.id, {}))
        except SpecError:  # one job that cannot be read must not hold up all others
            _log.exception("step_failed", job=str(job.id))
            continue
        found.append(
            ActiveJob(
                id=job.id,
                organization_id=job.organization_id,
                project=job.project_id,
                reason_code=job.reason_code,
                view=view,
                project_served_at=job.served_at,
                served_at=None if lease is None else lease.released_at,
            )
        )
    return found


def crew_of(
    session: Session, settings: Settings, organization_id: uuid.UUID, *, now: datetime
) -> list[WorkerView]:
    """Return an organisation's workers that are online, by name."""
    online = online_workers(session, settings, organization_id, now=now)
    if not online:
        return []
    busy = set(session.scalars(select(Lease.worker_id).where(Lease.released_at.is_(None))))
    is_generating = Generation.state == GenerationState.HOSTED
    busy |= set(session.scalars(select(Generation.worker_id).where(is_generating)))
    return [worker_view(worker, is_idle=worker.id not in busy) for worker in online]


def worker_view(worker: Worker, *, is_idle: bool = True) -> WorkerView:
    """Return a worker as it has told of itself."""
    told = worker.capabilities or {}
    return WorkerView(
        name=worker.name,
        is_idle=is_idle,
        is_drained=worker.drained_at is not None,
        memory_bytes=sum(int(device["total_memory_bytes"]) for device in worker.devices),
        precisions=tuple(told.get("precisions", ())),
        families=tuple(told.get("families", ())),
        models=tuple(told.get("models", ())),
        tokens_per_second=float(told.get("trunk_tokens_per_second") or 0.0),
    )


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """How long a job waits, and with how few silos it goes on; None: with all alone."""

    patience: timedelta
    min_silos: int | None


@lru_cache(maxsize=4096)
def _tolerance(spec_bytes: bytes) -> _Tolerance:
    """Parsing a specification costs more than all the rest of a look; it never changes."""
    spec = JobSpec.parse(spec_bytes)
    min_silos = spec.min_silos if spec.on_lost_silo == "continue" else None
    return _Tolerance(timedelta(seconds=spec.patience_seconds), min_silos)


def _committed(session: Session, jobs: Sequence[Any]) -> Mapping[uuid.UUID, dict[int, int]]:
    """Return how far the replicas are of those jobs that have any."""
    replicated = [job.id for job in jobs if _num_replicas(job.spec_bytes) > 1]
    return committed_rounds(session, replicated) if replicated else {}


def _num_replicas(spec_bytes: bytes) -> int:
    try:
        return layout_of(spec_bytes).num_replicas
    except SpecError:  # told where the job is looked at
        return 1


def _view(
    session: Session,
    job: Any,
    silos: Sequence[SiloView],
    leases: Mapping[int, Any],
    committed: Mapping[int, int],
) -> JobView:
    replicas, meeting = _replicas(job, leases, committed), _meeting(job, leases, committed)
    lease = None if replicas else leases.get(0)
    is_placed = job.state is JobState.QUEUED or (replicas and job.state in HOSTED)
    return JobView(
        state=job.state,
        desired=job.desired,
        since=job.state_since or job.updated_at,
        patience=_tolerance(job.spec_bytes).patience,
        silos=tuple(silos),
        lease=None if lease is None or lease.released_at is not None else _lease_view(lease),
        last_worker=None if lease is None else lease.name,
        need=NEEDS.of(session, job.model_id, job.spec_bytes) if is_placed else None,
        reason_code=job.reason_code,
        replicas=replicas,
        meeting=meeting,
        meeting_evaluates=meeting is not None and layout_of(job.spec_bytes).meeting_evaluates,
        min_silos=_tolerance(job.spec_bytes).min_silos,
    )


def _replicas(job: Any, leases: Mapping[int, Any], committed: Mapping[int, int]) -> tuple[ReplicaView, ...]:
    layout = layout_of(job.spec_bytes)
    if not layout.is_replicated:
        return ()
    found = []
    for number in range(layout.num_replicas):
        each, lease = _replica(number, leases, committed), leases.get(number)
        found.append(replace(each, is_done=lease is not None and layout.is_done(lease)))
    return tuple(found)


def _meeting(job: Any, leases: Mapping[int, Any], committed: Mapping[int, int]) -> ReplicaView | None:
    number = layout_of(job.spec_bytes).meeting
    return None if number is None else _replica(number, leases, committed)


def _replica(number: int, leases: Mapping[int, Any], committed: Mapping[int, int]) -> ReplicaView:
    lease = leases.get(number)
    is_open = lease is not None and lease.released_at is None
    return ReplicaView(
        number,
        _lease_view(lease) if is_open else None,
        committed=committed.get(number, 0),
        last_worker=None if lease is None else lease.name,
    )


def _lease_view(lease: Any) -> LeaseView:
    return LeaseView(
        worker=lease.name,
        is_holder_alive=lease.epoch == lease.worker_epoch and lease.revoked_at is None,
        expires_at=lease.expires_at,
        is_dispatched=lease.dispatched_at is not None,
        send_again_at=_send_again_at(lease),
    )


def _send_again_at(lease: Any) -> datetime | None:
    if lease.dispatched_at is None or lease.renewed_at is not None:
        return None
    dispatched_at: datetime = lease.dispatched_at
    return dispatched_at + timedelta(seconds=_SEND_AGAIN_SECONDS)


def _silos(session: Session, jobs: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, list[SiloView]]:
    query = (
        select(
            JobSilo.job_id, JobSilo.approval, JobSilo.finished_at, Silo.name, Silo.status, Silo.last_seen_at,
        )
        .join(Silo, Silo.id == JobSilo.silo_id)
        .where(JobSilo.job_id.in_(jobs))
        .order_by(JobSilo.job_id, JobSilo.position)
    )  # fmt: skip
    found: defaultdict[uuid.UUID, list[SiloView]] = defaultdict(list)
    for job_id, approval, finished_at, name, status, heard_at in session.execute(query).all():
        is_finished, is_revoked = finished_at is not None, status is PartyStatus.REVOKED
        found[job_id].append(
            SiloView(name, approval, is_finished=is_finished, is_revoked=is_revoked, heard_at=heard_at)
        )
    return found


def _leases(session: Session, jobs: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, dict[int, Any]]:
    """Return each job's leases by replica."""
    query = (
        select(
            Lease.job_id, Lease.replica, Lease.worker_epoch, Lease.expires_at, Lease.released_at,
            Lease.dispatched_at, Lease.renewed_at, Lease.round, Worker.name, Worker.epoch, Worker.revoked_at,
        )
        .join(Worker, Worker.id == Lease.worker_id)
        .where(Lease.job_id.in_(jobs))
    )  # fmt: skip
    found: defaultdict[uuid.UUID, dict[int, Any]] = defaultdict(dict)
    for lease in session.execute(query).all():
        found[lease.job_id][lease.replica] = lease
    return found
