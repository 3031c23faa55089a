"""Looks at every session that has not ended, and takes the next step; a part of each of the reconciler's.

As there: each step is a transaction of its own that looks again before it writes, and a task is sent after
the commit.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import update
from sqlalchemy.orm import Session

from backend.db.models import Generation, GenerationState, JobState, PartyKind, Worker
from backend.generations.decisions import (
    Action,
    Assign,
    Dispatch,
    End,
    Explain,
    Limits,
    TakeBack,
    decide,
)
from backend.generations.moves import assign, end, explain, take_back
from backend.generations.repository import OpenGeneration, lock_generation, open_generations
from backend.jobs import decisions as jobs
from backend.jobs.dispatch import Dispatcher
from backend.jobs.moves import Why
from backend.jobs.overview import active_jobs, crew_of
from backend.jobs.placing import WorkerView
from backend.jobs.stepping import step_each
from backend.parties.repository import find_party
from backend.server import Server
from backend.settings import Settings
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.errors import LinkError


def reconcile_generations(server: Server, dispatcher: Dispatcher) -> bool:
    """Look at every open session once; return whether the broker took all tasks."""
    return step_each(
        _to_step(server),
        partial(_step, server, dispatcher),
        explain=partial(_explain_broker, server),
        what="generation",
    )


def give_generations_time(session: Session, *, until: datetime) -> None:
    """Let leases on sessions last at least until a moment, and take nobody for silent before."""
    held = (
        Generation.state == GenerationState.HOSTED,
        Generation.renewed_at.is_not(None),
        Generation.expires_at < until,
    )
    session.execute(update(Generation).where(*held).values(expires_at=until))
    is_open = Generation.state != GenerationState.ENDED
    session.execute(update(Generation).where(is_open, Generation.heard_at < until).values(heard_at=until))


def limits_of(settings: Settings) -> Limits:
    """Return how long sessions may last."""
    return Limits(
        silence=timedelta(seconds=settings.generation_silence_seconds),
        longest=timedelta(seconds=settings.generation_seconds),
        yields_after=timedelta(seconds=settings.generation_yield_seconds),
    )


def _to_step(server: Server) -> list[uuid.UUID]:
    """Return the sessions about which something is to be done, as far as can be seen without a lock."""
    now = server.now()
    with server.database.read() as session:
        return [
            found.id
            for found in open_generations(session, now=now)
            if _decide(session, server, found, now=now) is not None
        ]


def _step(server: Server, dispatcher: Dispatcher, generation_id: uuid.UUID) -> None:
    to_send: tuple[str, GenerationDispatch] | None = None
    now = server.now()
    with server.database.write() as session:
        row = lock_generation(session, generation_id)
        for found in open_generations(session, now=now, only=generation_id):
            action = _decide(session, server, found, now=now)
            if row is not None and action is not None:
                to_send = _act(session, server, row, action, now=now)
    if to_send is None:
        return
    dispatcher.send_generation(*to_send)
    with server.database.write() as session:
        row = lock_generation(session, generation_id)
        if row is not None and row.epoch == to_send[1].epoch:
            row.dispatched_at = server.now()


def _decide(session: Session, server: Server, found: OpenGeneration, *, now: datetime) -> Action | None:
    crew = crew_of(session, server.settings, found.organization_id, now=now)
    limits = limits_of(server.settings)
    is_wanted = _is_wanted(session, found, crew, limits, now=now)
    action = decide(found.view, crew, limits, is_wanted=is_wanted, now=now)
    if isinstance(action, Explain) and action.why.code == found.view.reason_code:
        return None
    return action


def _is_wanted(
    session: Session, found: OpenGeneration, crew: Sequence[WorkerView], limits: Limits, *, now: datetime
) -> bool:
    """Whether training waits that could be given the very worker of this session.

    Asked only where the answer matters, for it reads every job: once the silo has asked nothing for a while.
    """
    view = found.view
    if view.lease is None or view.asked_at is None or now < view.asked_at + limits.yields_after:
        return False
    freed = [replace(each, is_idle=True) for each in crew if each.name == view.lease.worker]
    return any(
        job.organization_id == found.organization_id
        and job.view.state is JobState.QUEUED
        and isinstance(jobs.decide(job.view, freed, now=now), jobs.Assign)
        for job in active_jobs(session)
    )


def _act(
    session: Session, server: Server, row: Generation, action: Action, *, now: datetime
) -> tuple[str, GenerationDispatch] | None:
    match action:
        case End():
            end(session, row, action.why, now=now)
        case TakeBack():
            take_back(row, action.why, now=now)
        case Explain():
            explain(row, action.why)
        case Assign():
            worker = find_party(session, PartyKind.WORKER, action.worker)
            assert isinstance(worker, Worker)
            assign(session, server.settings, row, worker, now=now)
            return worker.name, _task(row)
        case Dispatch():
            assert row.worker_id is not None, "it is hosted"
            return session.get_one(Worker, row.worker_id).name, _task(row)
    return None


def _task(row: Generation) -> GenerationDispatch:
    return GenerationDispatch(generation=str(row.id), epoch=row.epoch, correlation_id=row.correlation_id)


def _explain_broker(server: Server, generation_id: uuid.UUID, error: LinkError) -> None:
    with server.database.write() as session:
        row = lock_generation(session, generation_id)
        if row is not None and row.state is GenerationState.HOSTED:
            explain(row, Why("broker", "broker", error.message, "hosted", "sent again in a moment"))
