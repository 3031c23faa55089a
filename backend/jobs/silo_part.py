"""What a silo's agent asks and says about jobs."""

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from backend.artifacts.service import Blob
from backend.audit import Actor, record
from backend.db.base import MAX_TEXT, MAX_WORD, storable
from backend.db.models import Approval, Desired, Job, JobState, Silo
from backend.events import EventKind, emit
from backend.jobs.errors import JobOverError, NoLeaseError, WrongStateError
from backend.jobs.lost_silos import LOST
from backend.jobs.moves import Why, move
from backend.jobs.replicas import lease_to_join, leases_of, next_epoch
from backend.jobs.repository import SiloTask, find_part, jobs_of_silo, worker_of
from backend.jobs.starting import has_result_of_start
from backend.jobs.state import ENDED, HOSTED
from backend.settings import Settings
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    BlobRef,
    DesiredState,
    FinishBody,
    SiloJob,
    SiloLease,
)

MAX_MESSAGE = 2000
"""Characters of a silo's last word."""


@dataclass(frozen=True, slots=True)
class Part:
    """Whose word about which job."""

    job_id: uuid.UUID
    silo_id: uuid.UUID
    silo: str


def jobs_for(session: Session, settings: Settings, silo_id: uuid.UUID) -> tuple[SiloJob, ...]:
    """Return the jobs that want something of a silo."""
    return tuple(_describe(session, settings, task) for task in jobs_of_silo(session, silo_id))


def approve(session: Session, part: Part, body: ApprovalBody, *, now: datetime) -> None:
    """Take a silo's word on a job; saying the same again changes nothing.

    Raises:
        JobOverError: It has ended.
        WrongStateError: The silo has said the contrary before.
    """
    job, row = find_part(session, part.job_id, part.silo_id)
    word = Approval(body.decision)
    if row.approval is word:
        return
    if job.state in ENDED:
        raise JobOverError(f"the job is {job.state.value}")
    if row.approval is not Approval.WAITING:
        raise WrongStateError(f"{part.silo!r} has {row.approval.value} this job before")
    row.approval, row.approval_code = word, body.code[:MAX_WORD]
    row.approval_reason = storable(body.reason, MAX_TEXT)
    told = {"silo": part.silo, "approval": word.value, "code": body.code, "reason": row.approval_reason}
    emit(session, job.project_id, EventKind.SILO_APPROVAL, body=told, now=now, job_id=job.id)
    record(
        session,
        Actor("silo", part.silo, organization_id=session.get_one(Silo, part.silo_id).organization_id),
        at=now,
        action="approve_job" if word is Approval.APPROVED else "refuse_job",
        subject_kind="job",
        subject_name=str(job.id),
        details={"name": job.name, "code": row.approval_code},
    )


def attach(session: Session, settings: Settings, part: Part, attempt: str, *, now: datetime) -> SiloLease:
    """Let an attempt of a silo join the current epoch; another one on the same epoch raises it.

    A silo that begins again has lost its half of the conversation with the trunk, so the trunk has to
    begin again with all silos, from the last common round.

    Raises:
        JobOverError: It has ended, or goes on without this silo.
        NoLeaseError: No worker hosts the trunk.
    """
    job, row = find_part(session, part.job_id, part.silo_id)
    if job.state in ENDED:
        raise JobOverError(f"the job is {job.state.value}")
    if row.finish_outcome == LOST:
        raise JobOverError(f"this silo's part is over: {row.finish_message}")
    lease = lease_to_join(job, row, leases_of(session, job))
    if lease is None or lease.released_at is not None or job.state not in HOSTED:
        raise NoLeaseError(f"the job is {job.state.value}: no worker hosts the trunk")
    if row.attached_epoch == lease.epoch and row.attempt != attempt:
        lease.epoch = next_epoch(session, job)
        told = {"epoch": lease.epoch, "reason": f"{part.silo} began again"}
        emit(session, job.project_id, EventKind.EPOCH_RAISED, body=told, now=now, job_id=job.id)
    if (row.attached_epoch, row.attempt) != (lease.epoch, attempt):
        row.attached_epoch, row.attempt, row.progressed_at = lease.epoch, attempt, now
        told = {"silo": part.silo, "epoch": lease.epoch}
        emit(session, job.project_id, EventKind.SILO_ATTACHED, body=told, now=now, job_id=job.id)
    return SiloLease(
        replica=lease.replica,
        epoch=lease.epoch,
        worker=worker_of(session, lease).name,
        gateway_url=settings.gateway_urls[0],
    )


def finish(session: Session, part: Part, body: FinishBody, *, now: datetime) -> None:
    """Take a silo's word that it is through; the first one counts.

    Raises:
        WrongStateError: The trunk is not trained to its end, or another attempt has joined since.
    """
    job, row = find_part(session, part.job_id, part.silo_id)
    if row.finished_at is not None or job.state in ENDED:
        return
    if body.attempt is not None and body.attempt != row.attempt:
        raise WrongStateError(f"attempt {body.attempt} of {part.silo!r} is over; a newer one speaks for it")
    if body.outcome == "completed" and job.state is not JobState.FINISHING:
        raise WrongStateError(f"the job is {job.state.value}; a silo has its result when it is finishing")
    row.finish_outcome, row.finished_at = body.outcome, now
    row.finish_code, row.finish_message = body.code[:MAX_WORD], storable(body.message, MAX_MESSAGE)
    told = {"silo": part.silo, "outcome": body.outcome, "code": body.code, "message": body.message}
    emit(session, job.project_id, EventKind.SILO_FINISHED, body=told, now=now, job_id=job.id)
    if body.outcome == "failed":
        why = Why(
            body.code,
            part.silo,
            body.message or "its agent failed",
            job.state.value,
            "see the agent's log; retry",
        )
        move(session, job, JobState.FAILED, why, now=now)


def _describe(session: Session, settings: Settings, task: SiloTask) -> SiloJob:
    job, lease, result = task.job, task.lease, task.result
    is_hosted = lease is not None and lease.released_at is None and job.state in HOSTED
    return SiloJob(
        id=str(job.id),
        name=job.name,
        state=job.state.value,
        desired=DesiredState(job.desired.value),
        approval=task.part.approval.value,
        spec=base64.b64encode(job.spec_bytes).decode(),
        signature=base64.b64encode(job.spec_signature).decode(),
        max_resume_round=job.max_resume_round,
        lease=SiloLease(
            replica=lease.replica,
            epoch=lease.epoch,
            worker=task.worker,
            gateway_url=settings.gateway_urls[0],
        )
        if is_hosted and lease is not None and task.worker is not None
        else None,
        result=BlobRef(digest=result.digest.hex(), num_bytes=result.num_bytes) if result else None,
        correlation_id=job.correlation_id,
        has_start=has_result_of_start(session, job, task.part.silo_id),
    )


def blob_of(ref: BlobRef) -> Blob:
    """Return a blob as the store names it."""
    return Blob(bytes.fromhex(ref.digest), ref.num_bytes)


def wants(job: Job) -> Desired:
    """Return what people want of a job, as a worker is to be told."""
    return Desired.CANCEL if job.state in ENDED else job.desired
