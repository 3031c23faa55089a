"""Finding sessions of generation, and what deciding needs to know of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Artifact, Generation, GenerationState, Job, JobState, Project, Silo, Worker
from backend.generations.decisions import GenerationView
from backend.generations.errors import UnknownGenerationError
from backend.jobs.decisions import LeaseView
from backend.jobs.needs import NEEDS
from backend.jobs.state import ENDED
from backend.paging import Cursor, is_before
from backend.parties.standing import is_out
from splitlearn.control_plane.schemas import BlobRef

_SEND_AGAIN_SECONDS = 3.0
"""As for jobs: a task that nobody took up for so long is sent again."""
_WITH_RESULT = ENDED | {JobState.FINISHING}


@dataclass(frozen=True, slots=True)
class OpenGeneration:
    """A session that has not ended, and whose workers may host it."""

    id: uuid.UUID
    organization_id: uuid.UUID
    view: GenerationView


def has_result(job: Job) -> bool:
    """Whether a job's result is there and no training changes it."""
    return job.result_id is not None and job.state in _WITH_RESULT


def result_of(session: Session, job: Job) -> BlobRef:
    """Return a job's result, which :func:`has_result` says is there."""
    result = session.get_one(Artifact, job.result_id)
    return BlobRef(digest=result.digest.hex(), num_bytes=result.num_bytes)


def lock_generation(session: Session, generation_id: uuid.UUID) -> Generation | None:
    """Return a session, locked until the transaction ends."""
    query = select(Generation).where(Generation.id == generation_id).with_for_update()
    return session.scalars(query).one_or_none()


def find_generation_of(
    session: Session, silo_id: uuid.UUID, job_id: uuid.UUID, generation_id: uuid.UUID
) -> Generation:
    """Return a silo's session, locked.

    Raises:
        UnknownGenerationError: It has none of this id in this job.
    """
    found = lock_generation(session, generation_id)
    if found is None or (found.silo_id, found.job_id) != (silo_id, job_id):
        raise UnknownGenerationError(f"this silo has no session {generation_id} of job {job_id}")
    return found


def find_attempt(session: Session, silo_id: uuid.UUID, attempt: str) -> Generation | None:
    """Return the session that an attempt of a silo began."""
    query = select(Generation).where(Generation.silo_id == silo_id, Generation.attempt == attempt)
    return session.scalars(query).one_or_none()


def count_open(session: Session, silo_id: uuid.UUID) -> int:
    """Return how many sessions of a silo have not ended."""
    query = select(func.count()).where(
        Generation.silo_id == silo_id, Generation.state != GenerationState.ENDED
    )
    return session.scalar(query) or 0


def generations_of(
    session: Session, job_id: uuid.UUID, *, before: Cursor | None, limit: int
) -> Sequence[tuple[Generation, str, str | None]]:
    """Return a job's sessions, newest first, with the names of silo and last worker."""
    query = (
        select(Generation, Silo.name, Worker.name)
        .join(Silo, Silo.id == Generation.silo_id)
        .outerjoin(Worker, Worker.id == Generation.worker_id)
        .where(Generation.job_id == job_id)
    )
    if before is not None:
        query = query.where(is_before(Generation.created_at, Generation.id, before))
    newest = query.order_by(Generation.created_at.desc(), Generation.id.desc()).limit(limit)
    return [(row, silo, worker) for row, silo, worker in session.execute(newest).all()]


def open_generations(
    session: Session, *, now: datetime, only: uuid.UUID | None = None
) -> list[OpenGeneration]:
    """Return every session that has not ended, oldest first; or one, if it has not.

    Args:
        session: Of the database.
        now: The server's time, by which certificates end.
        only: The one that is asked about.
    """
    query = (
        select(Generation, Job, Project.organization_id, Silo, Worker)
        .join(Job, Job.id == Generation.job_id)
        .join(Project, Project.id == Job.project_id)
        .join(Silo, Silo.id == Generation.silo_id)
        .outerjoin(Worker, Worker.id == Generation.worker_id)
        .where(Generation.state.in_((GenerationState.WAITING, GenerationState.HOSTED)))
        .order_by(Generation.created_at, Generation.id)
    )
    if only is not None:
        query = query.where(Generation.id == only)
    return [
        OpenGeneration(row.id, organization_id, _view(session, row, job, silo, worker, now=now))
        for row, job, organization_id, silo, worker in session.execute(query).all()
    ]


def _view(
    session: Session, row: Generation, job: Job, silo: Silo, worker: Worker | None, *, now: datetime
) -> GenerationView:
    is_waiting = row.state is GenerationState.WAITING
    return GenerationView(
        state=row.state,
        silo=silo.name,
        is_silo_out=is_out(silo, now=now),
        is_result_there=has_result(job),
        heard_at=row.heard_at,
        epoch=row.epoch,
        lease=None if is_waiting or worker is None else _lease(row, worker),
        hosted_at=row.hosted_at,
        asked_at=row.asked_at,
        last_worker=None if worker is None else worker.name,
        need=NEEDS.of(session, job.model_id, job.spec_bytes) if is_waiting else None,
        reason_code=row.reason_code,
    )


def _lease(row: Generation, worker: Worker) -> LeaseView | None:
    if row.expires_at is None or row.released_at is not None:
        return None
    is_taken_up = row.dispatched_at is None or row.renewed_at is not None
    return LeaseView(
        worker=worker.name,
        is_holder_alive=row.worker_epoch == worker.epoch and worker.revoked_at is None,
        expires_at=row.expires_at,
        is_dispatched=row.dispatched_at is not None,
        send_again_at=None
        if is_taken_up or row.dispatched_at is None
        else row.dispatched_at + timedelta(seconds=_SEND_AGAIN_SECONDS),
    )
