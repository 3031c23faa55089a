"""Moving a job from state to state, with a reason that says who, what, where and what next."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.base import MAX_NAME, MAX_TEXT, MAX_WORD, storable
from backend.db.models import Job, JobState, Lease
from backend.events import EventKind, emit
from backend.jobs.state import HOSTED, check_move


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


def _release_leases(session: Session, job: Job, *, now: datetime) -> None:
    for lease in session.scalars(select(Lease).where(Lease.job_id == job.id, Lease.released_at.is_(None))):
        lease.released_at = now
