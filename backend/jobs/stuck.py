"""Whether a job's trunk got stuck before: once it is tried again, in a row it is given up."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Event, Job
from backend.events import EventKind

STUCK = "worker_stuck"
_LOOKED_AT = 200
"""Newest events that are looked at: attempts that commit no round tell a handful each."""


def was_stuck_before(session: Session, job: Job) -> bool:
    """Whether a worker's computation got stuck since the last committed round, or the last retry."""
    query = select(Event).where(Event.job_id == job.id).order_by(Event.number.desc()).limit(_LOOKED_AT)
    for event in session.scalars(query):
        if event.kind == EventKind.ROUND_COMMITTED.value:
            return False
        if event.kind == EventKind.JOB_STATE.value and event.body["code"] in {STUCK, "retried"}:
            return bool(event.body["code"] == STUCK)
    return False
