"""Finding jobs, their silos, leases and rounds."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select, union_all
from sqlalchemy.orm import Session

from backend.db.models import (
    Artifact,
    Federation,
    Job,
    JobSilo,
    JobState,
    Lease,
    PartyKind,
    Project,
    Round,
    RoundState,
    Silo,
    Worker,
)
from backend.jobs.errors import UnknownJobError
from backend.jobs.replicas import lease_to_join
from backend.jobs.state import WANTS_SILOS
from backend.paging import Cursor, is_before, is_behind
from backend.parties.repository import find_party


@dataclass(frozen=True, slots=True)
class SiloTask:
    """A job that wants something of a silo.

    Attributes:
        job: The job.
        part: The silo's part in it.
        lease: Who hosts the trunk, or did last; None before the first.
        worker: That worker's name.
        result: The trunk's trained tensors; None before the end.
    """

    job: Job
    part: JobSilo
    lease: Lease | None
    worker: str | None
    result: Artifact | None


def find_job(session: Session, job_id: uuid.UUID, organization_id: uuid.UUID, *, lock: bool = False) -> Job:
    """Return an organisation's job.

    Raises:
        UnknownJobError: It has none of this id.
    """
    query = select(Job).join(Project).where(Job.id == job_id, Project.organization_id == organization_id)
    job = session.scalars(query.with_for_update(of=Job) if lock else query).one_or_none()
    if job is None:
        raise UnknownJobError(f"your organisation has no job {job_id}")
    return job


def lock_job(session: Session, job_id: uuid.UUID) -> Job | None:
    """Return a job, locked until the transaction ends."""
    return session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one_or_none()


def jobs_of(
    session: Session,
    organization_id: uuid.UUID,
    *,
    state: JobState | None,
    name: str | None,
    silo: str | None,
    before: Cursor | None,
    limit: int,
) -> Sequence[Job]:
    """Return an organisation's jobs, newest first.

    Each project has an index in this order, of which the beginning is read; a page is the newest of all
    these beginnings.
    """
    wanted: list[ColumnElement[bool]] = []
    if state is not None:
        wanted.append(Job.state == state)
    if name is not None:
        wanted.append(Job.name == name)
    if silo is not None:
        party = find_party(session, PartyKind.SILO, silo)
        if party is None:
            return []
        wanted.append(exists().where(JobSilo.job_id == Job.id, JobSilo.silo_id == party.id))
    if before is not None:
        wanted.append(is_before(Job.created_at, Job.id, before))
    newest = (Job.created_at.desc(), Job.id.desc())
    projects = session.scalars(select(Project.id).where(Project.organization_id == organization_id)).all()
    of_each = [
        select(Job.id).where(Job.project_id == project_id, *wanted).order_by(*newest).limit(limit).subquery()
        for project_id in projects
    ]
    if not of_each:
        return []
    ids = union_all(*(select(beginning.c.id) for beginning in of_each))
    return session.scalars(select(Job).where(Job.id.in_(ids)).order_by(*newest).limit(limit)).all()


def silos_of(session: Session, job_id: uuid.UUID) -> Sequence[tuple[JobSilo, Silo]]:
    """Return a job's silos in the roster's order."""
    query = select(JobSilo, Silo).join(Silo).where(JobSilo.job_id == job_id).order_by(JobSilo.position)
    return [(part, silo) for part, silo in session.execute(query).all()]


def jobs_of_silo(session: Session, silo_id: uuid.UUID) -> Sequence[SiloTask]:
    """Return the jobs that want something of a silo, oldest first; one query, however many there are."""
    query = (
        select(Job, JobSilo, Lease, Worker.name, Artifact)
        .join(JobSilo, JobSilo.job_id == Job.id)
        .outerjoin(Lease, Lease.job_id == Job.id)
        .outerjoin(Worker, Worker.id == Lease.worker_id)
        .outerjoin(Artifact, Artifact.id == Job.result_id)
        .where(JobSilo.silo_id == silo_id, Job.state.in_(WANTS_SILOS), JobSilo.finished_at.is_(None))
        .order_by(Job.created_at, Job.id)
    )
    parts: dict[uuid.UUID, tuple[Job, JobSilo, Artifact | None]] = {}
    leases: defaultdict[uuid.UUID, dict[int, Lease]] = defaultdict(dict)
    names: dict[uuid.UUID, str] = {}
    for job, part, lease, worker, result in session.execute(query).all():
        parts[job.id] = job, part, result
        if lease is not None:
            leases[job.id][lease.replica] = lease
            names[lease.worker_id] = worker
    found = []
    for job, part, trained in parts.values():
        joined = lease_to_join(job, part, leases[job.id])
        found.append(
            SiloTask(job, part, joined, None if joined is None else names[joined.worker_id], trained)
        )
    return found


def silo_fingerprints(session: Session, silos: Collection[uuid.UUID]) -> dict[uuid.UUID, object]:
    """Return for each of these silos a value that changes with what its agent is told: standing, and jobs.

    A few queries for all silos. Not read: what never changes while a job lives, such as its specification;
    and jobs that have ended, of which there are far more than of others.
    """
    revocations = session.scalars(select(Federation.revocation_list)).all()
    found: dict[uuid.UUID, list[object]] = {silo: [revocations] for silo in silos}
    for silo_id, *standing in session.execute(
        select(Silo.id, Silo.status, Silo.epoch).where(Silo.id.in_(silos))
    ).all():
        found[silo_id].append(tuple(standing))
    wanted = (
        select(Job.id, Job.state, Job.desired, Job.max_resume_round, Job.result_id)
        .where(Job.state.in_(WANTS_SILOS))
        .order_by(Job.created_at, Job.id)
    )
    jobs = {job.id: tuple(job) for job in session.execute(wanted).all()}
    leases: defaultdict[uuid.UUID, list[object]] = defaultdict(list)
    held = select(Lease.job_id, Lease.replica, Lease.epoch, Lease.worker_id, Lease.released_at)
    for job_id, *lease in session.execute(
        held.where(Lease.job_id.in_(jobs)).order_by(Lease.job_id, Lease.replica)
    ).all():
        leases[job_id].append(tuple(lease))
    parts = select(JobSilo.job_id, JobSilo.silo_id, JobSilo.approval)
    for job_id, silo_id, approval in session.execute(
        parts.where(JobSilo.job_id.in_(jobs), JobSilo.finished_at.is_(None)).order_by(JobSilo.job_id)
    ).all():
        if silo_id in found:
            found[silo_id].append((approval, jobs[job_id], leases[job_id]))
    return dict(found)


def find_part(session: Session, job_id: uuid.UUID, silo_id: uuid.UUID) -> tuple[Job, JobSilo]:
    """Return a silo's part in a job, the job locked.

    Raises:
        UnknownJobError: It has no part in it.
    """
    job = lock_job(session, job_id)
    part = session.get(JobSilo, (job_id, silo_id))
    if job is None or part is None:
        raise UnknownJobError(f"this silo has no part in a job {job_id}")
    return job, part


def find_lease(session: Session, job_id: uuid.UUID, replica: int = 0) -> Lease | None:
    """Return a replica's lease, which may have been released."""
    return session.get(Lease, (job_id, replica))


def worker_of(session: Session, lease: Lease) -> Worker:
    """Return who holds a lease, or held it last."""
    return session.get_one(Worker, lease.worker_id)


def newest_commit(session: Session, job: Job, replica: int = 0) -> tuple[Round, Artifact] | None:
    """Return the newest committed round from which the job may be resumed, with its checkpoint."""
    query = (
        select(Round, Artifact)
        .join(Artifact, Round.checkpoint_id == Artifact.id)
        .where(Round.job_id == job.id, Round.replica == replica, Round.state == RoundState.COMMITTED)
        .order_by(Round.number.desc())
        .limit(1)
    )
    if job.max_resume_round is not None:
        query = query.where(Round.number <= job.max_resume_round)
    found = session.execute(query).one_or_none()
    return None if found is None else (found[0], found[1])


def rounds_of(session: Session, job_id: uuid.UUID, *, after: tuple[int, int], limit: int) -> Sequence[Round]:
    """Return a job's rounds by number and replica, from behind ``after`` on."""
    number, replica = after
    query = select(Round).where(
        Round.job_id == job_id,
        (Round.number > number) | ((Round.number == number) & (Round.replica > replica)),
    )
    return session.scalars(query.order_by(Round.number, Round.replica).limit(limit)).all()


def artifacts_of(
    session: Session, job_id: uuid.UUID, *, after: Cursor | None, limit: int
) -> Sequence[Artifact]:
    """Return what a job has left in the store, oldest first, from behind ``after`` on."""
    query = select(Artifact).where(Artifact.job_id == job_id)
    if after is not None:
        query = query.where(is_behind(Artifact.created_at, Artifact.id, after))
    return session.scalars(query.order_by(Artifact.created_at, Artifact.id).limit(limit)).all()
