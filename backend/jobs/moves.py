"""Moving a job from state to state, with a reason that says who, what, where and what next."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import record
from backend.audit.service import SERVER
from backend.db.base import MAX_NAME, MAX_TEXT, MAX_WORD, storable
from backend.db.models import Job, JobState, Kept, Lease, Project
from backend.events import EventKind, emit
from backend.jobs.state import ENDED, HOSTED, check_move
from backend.notices.outbox import Topic, Word, tell


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job is in its state.

    Attributes:
        code: One stable word.
        who: Party, user or part of the platform.
        what: What happened; a sentence.
        where: Round, step or place.
        next: What happens next, or what to do.
    """

    code: str
    who: str
    what: str
    where: str
    next: str


def move(session: Session, job: Job, state: JobState, why: Why, *, now: datetime) -> None:
    """Move a job, and tell of it. A job that is no longer hosted has no lease: its worker is free.

    Raises:
        IllegalMoveError: The table of states does not have the move.
    """
    check_move(job.state, state)
    before, job.state, job.state_since = job.state, state, now
    if before in HOSTED and state not in HOSTED:
        _release_leases(session, job, now=now)
    if before in ENDED:  # retried: what comes is kept whole until it has ended again
        job.metrics_kept = job.logs_kept = Kept.WHOLE.value
    explain(job, why, now=now)
    body = {
        "from": before.value,
        "to": state.value,
        "code": job.reason_code,
        "who": job.reason_who,
        "what": job.reason_what,
        "where": job.reason_where,
        "next": job.reason_next,
    }
    emit(session, job.project_id, EventKind.JOB_STATE, body=body, now=now, job_id=job.id)
    if state is JobState.FAILED:
        _tell_of_failure(session, job, now=now)
    if state in ENDED:
        _record_end(session, job, now=now)


def release_replica(session: Session, job: Job, lease: Lease, why: Why, *, now: datetime) -> None:
    """Take one replica's lease back; the job is queued where no other is hosted."""
    lease.released_at = now
    session.get_one(Project, job.project_id).served_at = now
    session.flush()
    others = select(Lease.replica).where(Lease.job_id == job.id, Lease.released_at.is_(None)).limit(1)
    if session.scalars(others).first() is None:
        move(session, job, JobState.QUEUED, why, now=now)
    else:
        explain(job, why, now=now)


def _tell_of_failure(session: Session, job: Job, *, now: datetime) -> None:
    word = Word(
        Topic.JOB_FAILED,
        key=f"failed {job.id} {now.isoformat()}",
        subject=f"Job {job.name} has failed: {job.reason_code}",
        facts={
            "job": str(job.id),
            "name": job.name,
            "code": job.reason_code,
            "submitted_by": job.submitted_by,
        },
        next=job.reason_next,
    )
    organization_id = session.get_one(Project, job.project_id).organization_id
    tell(session, word, organization_id=organization_id, now=now)


def explain(job: Job, why: Why, *, now: datetime) -> bool:
    """Say why the job is as it is, in the same state; tell whether that is new."""
    words = (
        why.code[:MAX_WORD],
        storable(why.who, MAX_NAME),
        storable(why.what, MAX_TEXT),
        storable(why.where, MAX_NAME),
        storable(why.next, MAX_TEXT),
    )
    known = (job.reason_code, job.reason_who, job.reason_what, job.reason_where, job.reason_next)
    if words == known:
        return False
    job.reason_code, job.reason_who, job.reason_what, job.reason_where, job.reason_next = words
    job.updated_at = now
    return True


def _record_end(session: Session, job: Job, *, now: datetime) -> None:
    record(
        session,
        SERVER,
        at=now,
        action="end_job",
        subject_kind="job",
        subject_name=str(job.id),
        organization_id=session.get_one(Project, job.project_id).organization_id,
        details={"name": job.name, "state": job.state.value, "code": job.reason_code, "who": job.reason_who},
    )


def _release_leases(session: Session, job: Job, *, now: datetime) -> None:
    for lease in session.scalars(select(Lease).where(Lease.job_id == job.id, Lease.released_at.is_(None))):
        lease.released_at = now
        session.get_one(Project, job.project_id).served_at = now
