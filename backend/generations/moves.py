"""Moving a session of generation: to a worker, back, and to its end; each with a reason for people."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.audit.service import SERVER
from backend.db.base import MAX_NAME, MAX_TEXT, MAX_WORD, storable
from backend.db.models import Generation, GenerationState, Job, Project, Silo, Worker
from backend.events import EventKind, emit
from backend.jobs.moves import Why
from backend.settings import Settings

_ACTIONS = {
    EventKind.GENERATION_OPENED: "open_generation",
    EventKind.GENERATION_ENDED: "end_generation",
}


def explain(row: Generation, why: Why) -> None:
    """Say why a session is as it is."""
    row.reason_code = why.code[:MAX_WORD]
    row.reason_who, row.reason_what = storable(why.who, MAX_NAME), storable(why.what, MAX_TEXT)
    row.reason_next = storable(why.next, MAX_TEXT)


def assign(session: Session, settings: Settings, row: Generation, worker: Worker, *, now: datetime) -> None:
    """Lease a session to a worker, under the next epoch."""
    row.state = GenerationState.HOSTED
    row.worker_id, row.worker_epoch = worker.id, worker.epoch
    row.epoch += 1
    row.gateway_url = row.dispatched_at = row.renewed_at = row.released_at = None
    row.hosted_at = row.asked_at = now
    row.expires_at = now + timedelta(seconds=settings.pickup_seconds)
    why = Why("leased", worker.name, "was given the session", "hosted", "it loads the trunk, the silo joins")
    explain(row, why)
    session.flush()


def take_back(row: Generation, why: Why, *, now: datetime) -> None:
    """End the lease of a session; it waits for another worker."""
    row.state, row.released_at = GenerationState.WAITING, now
    explain(row, why)


def end(session: Session, row: Generation, why: Why, *, now: datetime, actor: Actor | None = None) -> None:
    """End a session, and tell of it; saying it again changes nothing.

    Args:
        session: The transaction.
        row: The session, locked.
        why: What the silo and people are told.
        now: The server's time.
        actor: Who ended it; None for the control plane itself.
    """
    if row.state is GenerationState.ENDED:
        return
    if row.state is GenerationState.HOSTED:
        row.released_at = now
    row.state, row.ended_at = GenerationState.ENDED, now
    explain(row, why)
    told = {**_told(session, row), "code": row.reason_code, "num_tokens": row.num_tokens}
    _tell(session, row, EventKind.GENERATION_ENDED, told, actor=actor or SERVER, now=now)


def tell_opened(session: Session, row: Generation, actor: Actor, *, now: datetime) -> None:
    """Tell that a session was opened."""
    told = _told(session, row)
    _tell(session, row, EventKind.GENERATION_OPENED, told, actor=actor, now=now)


def _told(session: Session, row: Generation) -> dict[str, object]:
    return {"generation": str(row.id), "silo": session.get_one(Silo, row.silo_id).name}


def _tell(
    session: Session,
    row: Generation,
    kind: EventKind,
    told: dict[str, object],
    *,
    actor: Actor,
    now: datetime,
) -> None:
    job = session.get_one(Job, row.job_id)
    emit(session, job.project_id, kind, body=told, now=now, job_id=job.id)
    record(
        session,
        actor,
        at=now,
        action=_ACTIONS[kind],
        subject_kind="job",
        subject_name=str(job.id),
        organization_id=session.get_one(Project, job.project_id).organization_id,
        details={"name": job.name, **told},
    )
