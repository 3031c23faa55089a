"""What deciding needs to know of every active job, read at once: a few queries for all of them."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, JobState, Lease, PartyStatus, Project, Silo, Worker
from backend.jobs.decisions import JobView, LeaseView, SiloView
from backend.jobs.state import WANTS_SILOS
from backend.parties.repository import online_workers
from backend.settings import Settings
from splitlearn.errors import SpecError
from splitlearn.spec import JobSpec

_log = structlog.get_logger("backend.reconciler")
_ACTIVE = (JobState.SUBMITTED, *WANTS_SILOS)


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that has not ended, and what was said of it last."""

    id: uuid.UUID
    organization_id: uuid.UUID
    reason_code: str
    view: JobView


@dataclass(frozen=True, slots=True)
class Crew:
    """An organisation's workers: how many are online, and the names of those without a lease."""

    online: int = 0
    idle: list[str] = field(default_factory=list)


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
            Project.organization_id,
        )
        .join(Project, Project.id == Job.project_id)
        .where(*which)
        .order_by(Job.created_at, Job.id)
    ).all()  # fmt: skip
    if not jobs:
        return []
    silos = _silos(session, which)
    leases = _leases(session, which)
    found: list[ActiveJob] = []
    for job in jobs:
        try:
            view = _view(job, silos[job.id], leases.get(job.id))
        except SpecError:  # one job that cannot be read must not hold up all others
            _log.exception("step_failed", job=str(job.id))
            continue
        found.append(ActiveJob(job.id, job.organization_id, job.reason_code, view))
    return found


def crew_of(session: Session, settings: Settings, organization_id: uuid.UUID, *, now: datetime) -> Crew:
    """Return who of an organisation's workers could be given a trunk."""
    online = online_workers(session, settings, organization_id, now=now)
    if not online:
        return Crew()
    open_leases = select(Lease.worker_id, func.count()).where(Lease.released_at.is_(None))
    busy = {worker_id for worker_id, _ in session.execute(open_leases.group_by(Lease.worker_id)).all()}
    return Crew(len(online), [worker.name for worker in online if worker.id not in busy])


@lru_cache(maxsize=4096)
def _patience(spec_bytes: bytes) -> timedelta:
    """Parsing a specification costs more than all the rest of a look; it never changes."""
    return timedelta(seconds=JobSpec.parse(spec_bytes).patience_seconds)


def _view(job: Any, silos: Sequence[SiloView], lease: Any | None) -> JobView:
    return JobView(
        state=job.state,
        desired=job.desired,
        since=job.state_since or job.updated_at,
        patience=_patience(job.spec_bytes),
        silos=tuple(silos),
        lease=None if lease is None or lease.released_at is not None else _lease_view(lease),
        last_worker=None if lease is None else lease.name,
    )


def _lease_view(lease: Any) -> LeaseView:
    return LeaseView(
        worker=lease.name,
        is_holder_alive=lease.epoch == lease.worker_epoch and lease.revoked_at is None,
        expires_at=lease.expires_at,
        is_dispatched=lease.dispatched_at is not None,
    )


def _silos(session: Session, which: Sequence[Any]) -> Mapping[uuid.UUID, list[SiloView]]:
    query = (
        select(JobSilo.job_id, JobSilo.approval, JobSilo.finished_at, Silo.name, Silo.status)
        .join(Silo, Silo.id == JobSilo.silo_id)
        .join(Job, Job.id == JobSilo.job_id)
        .where(*which)
        .order_by(JobSilo.job_id, JobSilo.position)
    )
    found: defaultdict[uuid.UUID, list[SiloView]] = defaultdict(list)
    for job_id, approval, finished_at, name, status in session.execute(query).all():
        is_finished, is_revoked = finished_at is not None, status is PartyStatus.REVOKED
        found[job_id].append(SiloView(name, approval, is_finished=is_finished, is_revoked=is_revoked))
    return found


def _leases(session: Session, which: Sequence[Any]) -> Mapping[uuid.UUID, Any]:
    query = (
        select(
            Lease.job_id, Lease.worker_epoch, Lease.expires_at, Lease.released_at, Lease.dispatched_at,
            Worker.name, Worker.epoch, Worker.revoked_at,
        )
        .join(Worker, Worker.id == Lease.worker_id)
        .join(Job, Job.id == Lease.job_id)
        .where(*which, Lease.replica == 0)
    )  # fmt: skip
    return {lease.job_id: lease for lease in session.execute(query).all()}
