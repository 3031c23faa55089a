"""What a silo asks of its own sessions, and an admin of a project's."""

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor
from backend.db.models import Generation, GenerationState, Job, Worker
from backend.generations.errors import NoResultError, TooManyGenerationsError, UnknownGenerationError
from backend.generations.moves import end, tell_opened
from backend.generations.repository import (
    count_open,
    find_attempt,
    find_generation_of,
    has_result,
    lock_generation,
    result_of,
)
from backend.jobs.lost_silos import LOST
from backend.jobs.moves import Why
from backend.jobs.replicas import common_round
from backend.jobs.repository import find_part
from backend.jobs.signing import sign_again
from backend.log import current_request_id
from backend.settings import Settings
from splitlearn.control_plane.generation_schemas import OpenedGeneration, SiloGeneration

MAX_OPEN = 4
"""Sessions that one silo may have open."""
_FASTEST_SECONDS, _FAST_SECONDS = 0.25, 1.0


@dataclass(frozen=True, slots=True)
class Asker:
    """Which silo asks about which job."""

    job_id: uuid.UUID
    silo_id: uuid.UUID
    silo: str
    actor: Actor


def open_generation(
    session: Session, settings: Settings, asker: Asker, attempt: str, *, now: datetime
) -> OpenedGeneration:
    """Open a session; the same attempt again is answered with the one that it has opened.

    Raises:
        UnknownJobError: The silo has no part in the job.
        NoResultError: The job has no result, the silo's part in it was given up, or its model was removed.
        TooManyGenerationsError: As many as may be are open.
        NoSpecSignerError: Nobody vouches for this server's signature.
    """
    job, part = find_part(session, asker.job_id, asker.silo_id)
    known = find_attempt(session, asker.silo_id, attempt)
    _refuse_without_result(job, is_lost=part.finish_outcome == LOST)
    if known is not None and known.job_id == job.id:
        known.heard_at = max(known.heard_at, now)
        return _opened(session, settings, known, job)
    num_open = count_open(session, asker.silo_id)
    if num_open >= MAX_OPEN:
        raise TooManyGenerationsError(
            f"silo {asker.silo!r} has {num_open} open sessions; it may have {MAX_OPEN}"
        )
    sign_again(session, job, now=now)
    row = Generation(
        id=uuid.uuid4(),
        job_id=job.id,
        silo_id=asker.silo_id,
        attempt=attempt,
        state=GenerationState.WAITING,
        reason_code="opened",
        reason_who=asker.silo,
        reason_what="opened the session",
        reason_next="a worker takes it up",
        epoch=0,
        worker_epoch=0,
        num_tokens=0,
        correlation_id=current_request_id(),
        created_at=now,
        heard_at=now,
    )
    session.add(row)
    session.flush()
    tell_opened(session, row, asker.actor, now=now)
    return _opened(session, settings, row, job)


def show_generation(
    session: Session, settings: Settings, asker: Asker, generation_id: uuid.UUID, *, now: datetime
) -> SiloGeneration:
    """Tell how a session stands, and note that its silo lives.

    Raises:
        UnknownGenerationError: The silo has none of this id in this job.
    """
    row = find_generation_of(session, asker.silo_id, asker.job_id, generation_id)
    row.heard_at = max(row.heard_at, now)
    return _standing(session, settings, row)


def end_own(session: Session, asker: Asker, generation_id: uuid.UUID, *, now: datetime) -> None:
    """End a session at its silo's word; saying it again changes nothing.

    Raises:
        UnknownGenerationError: The silo has none of this id in this job.
    """
    row = find_generation_of(session, asker.silo_id, asker.job_id, generation_id)
    why = Why("finished", asker.silo, "is through", row.state.value, "nothing")
    end(session, row, why, now=now, actor=asker.actor)


def end_by_admin(
    session: Session, job: Job, generation_id: uuid.UUID, actor: Actor, *, now: datetime
) -> Generation:
    """End a session of a job at an admin's word.

    Raises:
        UnknownGenerationError: The job has none of this id.
    """
    row = lock_generation(session, generation_id)
    if row is None or row.job_id != job.id:
        raise UnknownGenerationError(f"job {job.id} has no session {generation_id}")
    why = Why("ended_by_admin", actor.name, "ended the session", row.state.value, "ask who ended it")
    end(session, row, why, now=now, actor=actor)
    return row


def _refuse_without_result(job: Job, *, is_lost: bool) -> None:
    if not has_result(job):
        raise NoResultError(
            f"job {job.name!r} is {job.state.value} and has no result to generate with; results are kept for "
            "as many days as TRUNKLINE_RESULT_DAYS says"
        )
    if is_lost:
        raise NoResultError(f"job {job.name!r} went on without this silo, whose blocks are not its result's")
    if job.model_id is None:
        raise NoResultError(
            f"the model of job {job.name!r} was removed; without it the trunk cannot be loaded"
        )


def _opened(session: Session, settings: Settings, row: Generation, job: Job) -> OpenedGeneration:
    return OpenedGeneration(
        **_standing(session, settings, row).model_dump(),
        name=job.name,
        spec=base64.b64encode(job.spec_bytes).decode(),
        signature=base64.b64encode(job.spec_signature).decode(),
        round=common_round(session, job),
        result=result_of(session, job),
    )


def _standing(session: Session, settings: Settings, row: Generation) -> SiloGeneration:
    is_hosted = row.state is GenerationState.HOSTED and row.worker_id is not None
    worker = session.get_one(Worker, row.worker_id).name if is_hosted else None
    return SiloGeneration(
        id=str(row.id),
        job=str(row.job_id),
        state=row.state.value,
        reason_code=row.reason_code,
        reason=f"{row.reason_who} {row.reason_what}; {row.reason_next}",
        epoch=row.epoch,
        worker=worker,
        poll_seconds=_FAST_SECONDS if is_hosted else _FASTEST_SECONDS,
        silence_seconds=settings.generation_silence_seconds,
    )
