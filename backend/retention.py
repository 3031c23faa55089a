"""Forgetting what parties told of jobs that ended long ago, and old events; a small batch at a time.

Jobs, rounds and the audit are never forgotten. A job that is retried begins anew: what is left of its numbers
stays, and what comes is kept whole until it has ended again.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from backend.db import Database
from backend.db.models import Event, Generation, GenerationState, Job, JobLogLine, Kept, Metric, Project
from backend.jobs.state import ENDED
from backend.settings import Settings

BATCH: Final = 5000
"""Rows that one transaction removes: some tens of milliseconds, in which SQLite lets nobody else write."""
THINNED_STEP: Final = 10
"""Of a thinned job every tenth step is left, and all numbers of whole rounds."""
_JOBS_AT_ONCE: Final = 100


def forget_some(database: Database, settings: Settings, *, now: datetime) -> bool:
    """Remove at most one batch of what has had its time; tell whether there may be more.

    Args:
        database: Where it is.
        settings: How long each kind is kept; 0 days keep it for ever.
        now: The server's time.
    """

    def kept_from(days: int) -> datetime | None:
        return now - timedelta(days=days) if days else None

    steps: Sequence[tuple[Callable[[Session, datetime], bool], int]] = (
        (_drop_metrics, settings.metric_days),
        (_thin_metrics, settings.metric_whole_days),
        (_drop_logs, settings.log_days),
        (_drop_generations, settings.event_days),
        (_drop_events, settings.event_days),
    )
    for step, days in steps:
        before = kept_from(days)
        if before is None:
            continue
        with database.write(quietly=True) as session:  # nobody waits for it
            if step(session, before):
                return True
    return False


def _drop_metrics(session: Session, before: datetime) -> bool:
    jobs = _ended(session, before, Job.metrics_kept.in_([Kept.WHOLE.value, Kept.THINNED.value]))

    def is_done(job: Job) -> bool:
        if _remove_metrics(session, job):
            return False
        job.metrics_kept = Kept.DROPPED.value
        return True

    return _one_batch(jobs, is_done)


def _thin_metrics(session: Session, before: datetime) -> bool:
    jobs = _ended(session, before, Job.metrics_kept == Kept.WHOLE.value)

    def is_done(job: Job) -> bool:
        if _remove_metrics(session, job, Metric.step >= 0, Metric.step % THINNED_STEP != 0):
            return False
        job.metrics_kept = Kept.THINNED.value
        return True

    return _one_batch(jobs, is_done)


def _drop_logs(session: Session, before: datetime) -> bool:
    jobs = _ended(session, before, Job.logs_kept == Kept.WHOLE.value)

    def is_done(job: Job) -> bool:
        # At most some thousands: of each party the newest are kept from the beginning.
        removed = session.execute(
            delete(JobLogLine).where(JobLogLine.job_id == job.id).returning(JobLogLine.number)
        )
        job.logs_kept = Kept.DROPPED.value
        return not removed.all()

    return _one_batch(jobs, is_done)


def _drop_generations(session: Session, before: datetime) -> bool:
    """Remove sessions of generation that ended long ago; the audit keeps that they were."""
    old = (Generation.state == GenerationState.ENDED, Generation.created_at < before)
    oldest = select(Generation.id).where(*old, Generation.ended_at < before).limit(BATCH)
    removed = delete(Generation).where(Generation.id.in_(oldest)).returning(Generation.id)
    return bool(session.scalars(removed).all())


def _drop_events(session: Session, before: datetime) -> bool:
    """Remove the beginning of a project's events; a reader begins with what is left."""
    for project_id in session.scalars(select(Project.id).order_by(Project.id)).all():
        oldest = (
            select(Event.number, Event.happened_at)
            .where(Event.project_id == project_id)
            .order_by(Event.number)
            .limit(BATCH)
            .subquery()
        )
        first_kept = session.scalar(select(func.min(oldest.c.number)).where(oldest.c.happened_at >= before))
        query = select(func.max(oldest.c.number))
        last = session.scalar(query if first_kept is None else query.where(oldest.c.number < first_kept))
        if last is not None:
            session.execute(delete(Event).where(Event.project_id == project_id, Event.number <= last))
            return True
    return False


def _one_batch(jobs: Sequence[Job], is_done: Callable[[Job], bool]) -> bool:
    """Go through jobs until one has had something to remove; most have nothing, and cost a look each."""
    for job in jobs:
        if not is_done(job):
            return True
    return bool(jobs)


def _ended(session: Session, before: datetime, kept: ColumnElement[bool]) -> Sequence[Job]:
    """Return jobs that ended long ago and were not seen to yet; a locked one is left for later."""
    query = select(Job).where(kept, Job.state.in_(ENDED), Job.state_since < before)
    return session.scalars(
        query.order_by(Job.state_since).limit(_JOBS_AT_ONCE).with_for_update(skip_locked=True)
    ).all()


def _remove_metrics(session: Session, job: Job, *which: ColumnElement[bool]) -> bool:
    """Remove the oldest numbers of a job, of these alone; tell whether there were any."""
    doomed = (Metric.job_id == job.id, *which)
    oldest = select(Metric.number).where(*doomed).order_by(Metric.number).limit(BATCH).subquery()
    last = session.scalar(select(func.max(oldest.c.number)))
    if last is None:
        return False
    session.execute(delete(Metric).where(*doomed, Metric.number <= last))
    return True
