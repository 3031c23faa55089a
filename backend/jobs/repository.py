"""Finding jobs, their silos, leases and rounds."""

import uuid
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from backend.db.models import (
    Artifact,
    Federation,
    Job,
    JobSilo,
    JobState,
    Lease,
    Project,
    Round,
    RoundState,
    Silo,
    Worker,
)
from backend.jobs.errors import UnknownJobError
from backend.jobs.state import WANTS_SILOS
from backend.paging import Cursor, is_behind


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
    """Return an organisation's jobs, newest first."""
    query = select(Job).join(Project).where(Project.organization_id == organization_id)
    if state is not None:
        query = query.where(Job.state == state)
    if name is not None:
        query = query.where(Job.name == name)
    if silo is not None:
        query = query.where(Job.id.in_(select(JobSilo.job_id).join(Silo).where(Silo.name == silo)))
    if before is not None:
        moment, job_id = before
        query = query.where((Job.created_at < moment) | ((Job.created_at == moment) & (Job.id < job_id)))
    return session.scalars(query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)).all()


def silos_of(session: Session, job_id: uuid.UUID) -> Sequence[tuple[JobSilo, Silo]]:
    """Return a job's silos in the roster's order."""
    query = select(JobSilo, Silo).join(Silo).where(JobSilo.job_id == job_id).order_by(JobSilo.position)
    return [(part, silo) for part, silo in session.execute(query).all()]


def jobs_of_silo(session: Session, silo_id: uuid.UUID) -> Sequence[tuple[Job, JobSilo]]:
    """Return the jobs that want something of a silo, oldest first."""
    query = (
        select(Job, JobSilo)
        .join(JobSilo)
        .where(JobSilo.silo_id == silo_id, Job.state.in_(WANTS_SILOS), JobSilo.finished_at.is_(None))
        .order_by(Job.created_at, Job.id)
    )
    return [(job, part) for job, part in session.execute(query).all()]


def silo_fingerprints(session: Session) -> dict[uuid.UUID, object]:
    """Return for each silo a value that changes with what its agent is told: its standing, and its jobs.

    One query for all silos. Not read: what never changes while a job lives, such as its specification.
    """
    wanted = and_(Job.id == JobSilo.job_id, Job.state.in_(WANTS_SILOS), JobSilo.finished_at.is_(None))
    query = (
        select(
            Silo.id, Silo.status, Silo.epoch,
            Job.id, Job.state, Job.desired, Job.max_resume_round, Job.result_id, JobSilo.approval,
            Lease.epoch, Lease.worker_id, Lease.released_at,
        )
        .outerjoin(JobSilo, JobSilo.silo_id == Silo.id)
        .outerjoin(Job, wanted)
        .outerjoin(Lease, Lease.job_id == Job.id)
        .order_by(Silo.id, Job.created_at, Job.id, Lease.replica)
    )  # fmt: skip
    revocations = session.scalars(select(Federation.revocation_list)).all()
    found: defaultdict[uuid.UUID, list[object]] = defaultdict(lambda: [revocations])
    for row in session.execute(query).all():
        found[row[0]].append(tuple(row[1:]))
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


def last_committed(session: Session, job_id: uuid.UUID) -> int:
    """Return the number of the last round that counts; 0 before the first."""
    query = select(func.max(Round.number)).where(Round.job_id == job_id, Round.state == RoundState.COMMITTED)
    return session.scalar(query) or 0


def artifacts_of(
    session: Session, job_id: uuid.UUID, *, after: Cursor | None, limit: int
) -> Sequence[Artifact]:
    """Return what a job has left in the store, oldest first, from behind ``after`` on."""
    query = select(Artifact).where(Artifact.job_id == job_id)
    if after is not None:
        query = query.where(is_behind(Artifact.created_at, Artifact.id, after))
    return session.scalars(query.order_by(Artifact.created_at, Artifact.id).limit(limit)).all()
