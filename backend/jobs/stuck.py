"""Whether a job's trunk got stuck before: once it is tried again, in a row it is given up."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Event, Job
from backend.events import EventKind
from backend.jobs.replicas import layout_of

STUCK = "worker_stuck"
_COMMITTED = frozenset({EventKind.ROUND_COMMITTED.value, EventKind.ROUND_AVERAGED.value})
_LOOKED_AT = 200
"""Newest events that are looked at: attempts that commit no round tell a handful each."""


def was_stuck_before(session: Session, job: Job, replica: int) -> bool:
    """Whether a worker's computation got stuck since the last committed round, or the last retry.

    Args:
        session: Of the database.
        job: The job.
        replica: Of this trunk, where there are several: what happened at the others counts for them.
    """
    of_one = layout_of(job.spec_bytes).is_replicated
    query = select(Event).where(Event.job_id == job.id).order_by(Event.number.desc()).limit(_LOOKED_AT)
    for event in session.scalars(query):
        is_about_it = not of_one or event.body.get("replica") == replica
        if event.kind in _COMMITTED and is_about_it:
            return False
        if event.kind == EventKind.REPLICA_STUCK.value and is_about_it:
            return True
        if event.kind == EventKind.JOB_STATE.value and event.body["code"] == "retried":
            return False
        if event.kind == EventKind.JOB_STATE.value and event.body["code"] == STUCK and not of_one:
            return True
    return False
