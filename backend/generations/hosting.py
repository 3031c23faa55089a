"""A worker's lease on a session: asked for, renewed, given back. Every word carries the epoch."""

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend.db.models import Generation, GenerationState, Job, Silo, Worker
from backend.generations.decisions import End, given_back
from backend.generations.moves import end, take_back
from backend.generations.repository import has_result, lock_generation, result_of
from backend.jobs.errors import LeaseLostError
from backend.jobs.moves import Why
from backend.jobs.replicas import common_round
from backend.settings import Settings
from splitlearn.control_plane.generation_schemas import (
    MAX_TOKENS_TOLD,
    GenerationLease,
    GenerationReleaseBody,
    GenerationRenewAnswer,
    GenerationRenewBody,
)

_LONGEST_IDLE_SECONDS = 86_400.0
"""A worker that says it was idle for longer is taken for one of so long."""


@dataclass(frozen=True, slots=True)
class Host:
    """Which process of a worker speaks about which session."""

    generation_id: uuid.UUID
    worker_id: uuid.UUID
    worker: str
    worker_epoch: int


def take(session: Session, settings: Settings, host: Host, *, epoch: int, now: datetime) -> GenerationLease:
    """Tell a dispatched worker what it is to do; the lease lasts from now on.

    Raises:
        LeaseLostError: The dispatch is an old one, or the job's result is gone.
    """
    row = _held(session, host, epoch=epoch)
    job = session.get_one(Job, row.job_id)
    if not has_result(job):
        raise LeaseLostError(f"job {job.name!r} has no result any more")
    _extend(row, settings, now=now)
    return GenerationLease(
        generation=str(row.id),
        job=str(job.id),
        name=job.name,
        silo=session.get_one(Silo, row.silo_id).name,
        epoch=row.epoch,
        valid_seconds=settings.lease_seconds,
        renew_seconds=settings.renew_seconds,
        idle_seconds=settings.generation_idle_seconds,
        spec=base64.b64encode(job.spec_bytes).decode(),
        signature=base64.b64encode(job.spec_signature).decode(),
        round=common_round(session, job),
        result=result_of(session, job),
    )


def renew(
    session: Session, settings: Settings, host: Host, body: GenerationRenewBody, *, now: datetime
) -> GenerationRenewAnswer:
    """Keep a lease, and learn how it goes.

    Raises:
        LeaseLostError: The session has ended, or somebody else holds it.
    """
    row = _held(session, host, epoch=body.epoch)
    _extend(row, settings, now=now)
    idle = timedelta(seconds=min(body.idle_seconds, _LONGEST_IDLE_SECONDS))
    row.asked_at = max(row.hosted_at or now, now - idle)
    return GenerationRenewAnswer(
        valid_seconds=settings.lease_seconds,
        drain=session.get_one(Worker, host.worker_id).drained_at is not None,
    )


def release(session: Session, host: Host, body: GenerationReleaseBody, *, now: datetime) -> None:
    """Take a lease back, and end the session, or let it wait for another worker, as the worker says.

    Raises:
        LeaseLostError: The session has ended, or somebody else holds it.
    """
    row = _held(session, host, epoch=body.epoch)
    row.num_tokens = min(row.num_tokens + body.num_tokens, MAX_TOKENS_TOLD)
    reason = body.reason
    why = Why(body.code, reason.who, reason.what, reason.where, reason.next)
    action = given_back(row.epoch, why) if body.outcome in {"drained", "stuck"} else End(why)
    if isinstance(action, End):
        end(session, row, action.why, now=now)
    else:
        take_back(row, action.why, now=now)


def _held(session: Session, host: Host, *, epoch: int) -> Generation:
    row = lock_generation(session, host.generation_id)
    if row is None or row.state is not GenerationState.HOSTED:
        state = "gone" if row is None else f"{row.state.value}: {row.reason_code}"
        raise LeaseLostError(f"nobody holds a lease on session {host.generation_id}: it is {state}")
    mine = (row.worker_id, row.worker_epoch, row.epoch)
    if mine != (host.worker_id, host.worker_epoch, epoch):
        raise LeaseLostError(f"the lease is at epoch {row.epoch}, this was said under epoch {epoch}")
    return row


def _extend(row: Generation, settings: Settings, *, now: datetime) -> None:
    row.renewed_at, row.expires_at = now, now + timedelta(seconds=settings.lease_seconds)
