"""What people ask of a job that is there: cancel, pause, resume, retry. The reconciler makes it true."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Approval, Desired, Job, JobSilo, JobState, Round, RoundState
from backend.jobs.errors import JobOverError, WrongStateError
from backend.jobs.moves import Why, move
from backend.jobs.state import ENDED

_BEFORE_TRAINING = frozenset({JobState.SUBMITTED, JobState.AWAITING_APPROVAL})


def cancel(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Ask for the end; asking again changes nothing.

    Raises:
        JobOverError: It has completed or failed.
    """
    if job.state is JobState.CANCELLED:
        return
    _refuse_ended(job)
    job.desired = Desired.CANCEL
    _record(session, job, actor, "cancel_job", now=now)


def pause(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Ask for a pause at the end of the round.

    Raises:
        JobOverError: It has ended.
        WrongStateError: It is not training yet, or finishing already.
    """
    _refuse_ended(job)
    if job.state in _BEFORE_TRAINING or job.state is JobState.FINISHING:
        raise WrongStateError(f"the job is {job.state.value}; only one that is queued or runs can be paused")
    job.desired = Desired.PAUSE
    _record(session, job, actor, "pause_job", now=now)


def resume(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
    """Let a paused job go on.

    Raises:
        JobOverError: It has ended.
        WrongStateError: A cancellation is under way.
    """
    _refuse_ended(job)
    if job.desired is Desired.CANCEL:
        raise WrongStateError("the job is being cancelled; retry it when it has ended")
    job.desired = Desired.RUN
    if job.state is JobState.PAUSED:
        why = Why("resumed", actor.name, "asked to go on", "API", "a worker takes it up")
        move(session, job, JobState.QUEUED, why, now=now)
    _record(session, job, actor, "resume_job", now=now)


def retry(session: Session, job: Job, actor: Actor, *, round_number: int | None, now: datetime) -> None:
    """Let a failed or cancelled job go on from a round.

    Raises:
        WrongStateError: It has not ended, has completed, was refused by a silo, or the round was never
            committed.
    """
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise WrongStateError(
            f"the job is {job.state.value}; only one that failed or was cancelled is retried"
        )
    parts = session.scalars(select(JobSilo).where(JobSilo.job_id == job.id)).all()
    if any(part.approval is Approval.REFUSED for part in parts):
        raise WrongStateError("a silo refused the job; clone it with the changes that the silo asks for")
    _go_back(session, job, round_number)
    for part in parts:
        part.finish_outcome, part.finished_at, part.finish_code, part.finish_message = None, None, "", ""
    job.desired, job.result_id = Desired.RUN, None
    where = "the newest round" if round_number is None else f"round {round_number}"
    why = Why("retried", actor.name, f"asked to go on after {where}", "API", "a worker takes it up")
    move(session, job, JobState.QUEUED, why, now=now)
    _record(session, job, actor, "retry_job", now=now)


def _go_back(session: Session, job: Job, round_number: int | None) -> None:
    job.max_resume_round = round_number
    if round_number is None:
        return
    rows = session.scalars(select(Round).where(Round.job_id == job.id)).all()
    kept = [row.number for row in rows if row.state is RoundState.COMMITTED and row.checkpoint_id is not None]
    if round_number not in {0, *kept}:
        raise WrongStateError(f"round {round_number} is not kept; kept are 0 (anew) and {sorted(kept)}")
    for row in rows:
        if row.number > round_number:
            row.state, row.committed_at = RoundState.ABANDONED, None


def _refuse_ended(job: Job) -> None:
    if job.state in ENDED:
        raise JobOverError(f"the job is {job.state.value}")


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
