"""Whether a worker's job is to give way to another one that waits: asked at each renewal of a lease."""

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Desired, Job, JobState, Lease, Project, Worker
from backend.jobs.decisions import Assign, JobView, decide
from backend.jobs.overview import ActiveJob, active_jobs, crew_of
from backend.jobs.placing import Turn, WorkerView, ending_turns
from backend.settings import Settings


def is_turn_over(session: Session, settings: Settings, job: Job, lease: Lease, *, now: datetime) -> bool:
    """Return whether a job that is hosted ends its turn with its round, because others wait."""
    turn = timedelta(seconds=settings.turn_seconds)
    if job.state is not JobState.RUNNING or job.state_since is None or now < job.state_since + turn:
        return False
    organization_id = session.get_one(Project, job.project_id).organization_id
    if not _does_anybody_wait(session, organization_id):
        return False
    jobs = [each for each in active_jobs(session) if each.organization_id == organization_id]
    crew = crew_of(session, settings, organization_id, now=now)
    return _gives_way(jobs, crew, session.get_one(Worker, lease.worker_id).name, turn=turn, now=now)


def _does_anybody_wait(session: Session, organization_id: object) -> bool:
    query = (
        select(Job.id)
        .join(Project, Project.id == Job.project_id)
        .where(
            Job.state == JobState.QUEUED,
            Job.desired == Desired.RUN,
            Project.organization_id == organization_id,
        )
        .limit(1)
    )
    return session.scalars(query).first() is not None


def _gives_way(
    jobs: list[ActiveJob], crew: list[WorkerView], name: str, *, turn: timedelta, now: datetime
) -> bool:
    mine = next((worker for worker in crew if worker.name == name), None)
    if mine is None:  # it has not told what it can do, or is silent: nothing is placed there
        return False
    waiting = [
        job.view
        for job in jobs
        if _could_begin(job.view, crew, now=now) is None
        and _could_begin(job.view, [_as_free(mine)], now=now) is not None
    ]
    if not waiting:
        return False
    turns = [
        Turn(job.view.lease.worker, job.project, job.view.since)
        for job in jobs
        if job.view.state is JobState.RUNNING
        and job.view.lease is not None
        and _is_wanted(job.view.lease.worker, crew, waiting, now=now)
    ]
    ending = ending_turns(turns, num_waiting=len(waiting), turn=turn, now=now)
    return any(each.worker == name for each in ending)


def _is_wanted(name: str, crew: list[WorkerView], waiting: list[JobView], *, now: datetime) -> bool:
    """Return whether any job that waits could be given this worker."""
    workers = [_as_free(worker) for worker in crew if worker.name == name]
    return any(_could_begin(view, workers, now=now) is not None for view in waiting)


def _could_begin(view: JobView, workers: list[WorkerView], *, now: datetime) -> str | None:
    """Return the worker that a job would be given if these were there; None for none."""
    if view.state is not JobState.QUEUED:
        return None
    action = decide(view, workers, now=now)
    return action.worker if isinstance(action, Assign) else None


def _as_free(worker: WorkerView) -> WorkerView:
    return replace(worker, is_idle=True)
