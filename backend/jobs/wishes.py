"""What people ask of a job that is there: cancel, pause, resume, retry. The reconciler makes it true."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Approval, Desired, Job, JobState, Metric, PartyStatus, Silo
from backend.jobs.errors import JobOverError, NotRepeatableError, WrongStateError
from backend.jobs.lost_silos import LOST
from backend.jobs.moves import Why, move
from backend.jobs.replicas import leases_of
from backend.jobs.repository import silos_of
from backend.jobs.rounds import abandon_after, kept_rounds
from backend.jobs.state import ENDED
from backend.jobs.submission import model_name

_BEFORE_TRAINING = frozenset({JobState.SUBMITTED, JobState.AWAITING_APPROVAL})


def cancel(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Ask for the end; asking again changes nothing.

    Raises:
        JobOverError: It has completed or failed.
    """
    if job.state is JobState.CANCELLED:
        return
    _refuse_ended(job)
    if job.desired is Desired.CANCEL:
        return
    job.desired = Desired.CANCEL
    _record(session, job, actor, "cancel_job", now=now)


def pause(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Ask for a pause at the end of the round.

    Raises:
        JobOverError: It has ended.
        WrongStateError: It is not training yet, finishing already, or a cancellation is under way.
    """
    _refuse_ended(job)
    _refuse_cancelled(job)
    if job.state in _BEFORE_TRAINING or job.state is JobState.FINISHING:
        raise WrongStateError(
            f"the job is {job.state.value}; only one that is queued or runs can be paused; cancel it, or wait"
        )
    job.desired = Desired.PAUSE
    _record(session, job, actor, "pause_job", now=now)


def resume(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Let a paused job go on.

    Raises:
        JobOverError: It has ended.
        WrongStateError: A cancellation is under way.
    """
    _refuse_ended(job)
    _refuse_cancelled(job)
    job.desired = Desired.RUN
    if job.state is JobState.PAUSED:
        why = Why("resumed", actor.name, "asked to go on", "API", "a worker takes it up")
        move(session, job, JobState.QUEUED, why, now=now)
    _record(session, job, actor, "resume_job", now=now)


def retry(session: Session, job: Job, actor: Actor, *, round_number: int | None, now: datetime) -> None:
    """Let a failed or cancelled job go on from a round; silos that never answered are asked again.

    Raises:
        WrongStateError: It has not ended, has completed, or was refused by a silo.
        NotRepeatableError: Its model, a silo or the round is not there any more.
    """
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        remedy = "clone it" if job.state is JobState.COMPLETED else "cancel it first"
        raise WrongStateError(
            f"the job is {job.state.value}; only one that failed or was cancelled is retried: {remedy}"
        )
    parts = silos_of(session, job.id)
    if any(part.approval is Approval.REFUSED for part, _ in parts):
        raise WrongStateError("a silo refused the job; clone it with the changes that the silo asks for")
    _refuse_missing(job, [silo for _, silo in parts])
    _go_back(session, job, round_number, now=now)
    for part, _ in parts:
        if part.finish_outcome == LOST:
            continue  # its blocks are those of an earlier round
        part.finish_outcome, part.finished_at, part.finish_code, part.finish_message = None, None, "", ""
        part.attempt = None  # its word may be on its way still, and is not about what comes now
    job.desired, job.result_id = Desired.RUN, None
    where = "the newest round" if round_number is None else f"round {round_number}"
    what = f"asked to go on after {where}"
    if any(part.approval is Approval.WAITING for part, _ in parts):
        why = Why("retried", actor.name, what, "API", "silos that have not answered are asked again")
        move(session, job, JobState.AWAITING_APPROVAL, why, now=now)
    else:
        why = Why("retried", actor.name, what, "API", "a worker takes it up")
        move(session, job, JobState.QUEUED, why, now=now)
    _record(session, job, actor, "retry_job", now=now)


def _refuse_missing(job: Job, silos: Sequence[Silo]) -> None:
    if job.model_id is None:
        name = model_name(json.loads(job.spec_bytes))["model"]
        raise NotRepeatableError(f"the model {name!r} was removed; add it again, and clone the job")
    gone = [silo.name for silo in silos if silo.status is not PartyStatus.ENROLLED]
    if gone:
        raise NotRepeatableError(
            f"the silo {gone[0]!r} is not enrolled any more; enrol it again, or clone the job without it"
        )


def _go_back(session: Session, job: Job, round_number: int | None, *, now: datetime) -> None:
    if round_number is None:
        return  # an earlier wish to go back holds until a round is committed after it
    kept = kept_rounds(session, job)
    if round_number not in {0, *kept}:
        raise NotRepeatableError(f"round {round_number} is not kept; kept are 0 (anew) and {kept}")
    job.max_resume_round = round_number
    abandon_after(session, job, round_number, now=now)
    for lease in leases_of(session, job).values():
        lease.round = 0  # a replica that was done is not any more
    # What parties told of later rounds is not the job's any more; they tell it of the rounds trained anew.
    session.execute(delete(Metric).where(Metric.job_id == job.id, Metric.round > round_number))


def _refuse_ended(job: Job) -> None:
    if job.state in ENDED:
        raise JobOverError(f"the job is {job.state.value}")


def _refuse_cancelled(job: Job) -> None:
    if job.desired is Desired.CANCEL:
        raise WrongStateError(f"the job is {job.state.value} and being cancelled; retry it when it has ended")


def _record(session: Session, job: Job, actor: Actor, action: str, *, now: datetime) -> None:
    job.updated_at = now
    record(
        session,
        actor,
        at=now,
        action=action,
        subject_kind="job",
        subject_name=str(job.id),
        details={"name": job.name, "state": job.state.value},
    )
