"""What should happen next with each job, from what is known of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.db.models import Approval, Desired, JobState
from backend.jobs.moves import Why


@dataclass(frozen=True, slots=True)
class SiloView:
    """A silo's part: its word on the job, whether it is through, and whether it still belongs."""

    name: str
    approval: Approval
    is_finished: bool
    is_revoked: bool = False


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease that was not released.

    Attributes:
        worker: Who holds it.
        is_holder_alive: Whether the process that was leased still speaks for the worker.
        expires_at: When it ends, unless renewed.
        is_dispatched: Whether its task was sent.
    """

    worker: str
    is_holder_alive: bool
    expires_at: datetime
    is_dispatched: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job that has not ended.

    Attributes:
        since: When it came into its state.
        patience: How long a wait without progress may last.
        last_worker: Who held its lease last.
    """

    state: JobState
    desired: Desired
    since: datetime
    patience: timedelta
    silos: tuple[SiloView, ...]
    lease: LeaseView | None
    last_worker: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Bring the job into another state."""

    state: JobState
    why: Why


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Take the lease back, and queue the job again."""

    why: Why


@dataclass(frozen=True, slots=True)
class Assign:
    """Lease the trunk to a worker."""

    worker: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the task of the lease that is there."""


@dataclass(frozen=True, slots=True)
class Explain:
    """Nothing to do but to say what is waited for."""

    why: Why


Action = Move | Reclaim | Assign | Dispatch | Explain

_PLATFORM = "control plane"


def decide(job: JobView, idle_workers: Sequence[str], *, online: int, now: datetime) -> Action | None:
    """Return the next thing to do about a job; None when nothing is.

    Args:
        job: The job.
        idle_workers: Online workers without a lease, by name.
        online: How many workers are online.
        now: The server's time.
    """
    if job.desired is Desired.CANCEL:
        why = Why("cancelled", _PLATFORM, "was asked to cancel", job.state.value, "retry or clone it")
        return Move(JobState.CANCELLED, why)
    revoked = [silo.name for silo in job.silos if silo.is_revoked and not silo.is_finished]
    if revoked:
        next_ = "clone the job without it, or enrol it again under a new name"
        why = Why("silo_revoked", revoked[0], "was revoked and cannot go on", job.state.value, next_)
        return Move(JobState.FAILED, why)
    action: Action | None = None
    match job.state:
        case JobState.AWAITING_APPROVAL:
            action = _await_approval(job, now=now)
        case JobState.QUEUED:
            action = _place(job, idle_workers, online=online)
        case JobState.PREPARING | JobState.RUNNING:
            action = _look_after(job, now=now)
        case JobState.PAUSED:
            action = _go_on(job)
        case JobState.FINISHING:
            action = _finish(job, now=now)
    return action


def _await_approval(job: JobView, *, now: datetime) -> Action | None:
    refused = [silo.name for silo in job.silos if silo.approval is Approval.REFUSED]
    if refused:
        why = Why(
            "refused",
            refused[0],
            "refused the job",
            "awaiting_approval",
            "see the silo's reason in the job; correct the specification or the data, and clone the job",
        )
        return Move(JobState.FAILED, why)
    waiting = [silo.name for silo in job.silos if silo.approval is Approval.WAITING]
    if not waiting:
        why = Why("approved", "silos", "all approved", "awaiting_approval", "a worker takes it up")
        return Move(JobState.QUEUED, why)
    if now > job.since + job.patience:
        why = Why(
            "no_answer",
            waiting[0],
            f"did not answer within {job.patience.total_seconds():g} s (patience_seconds)",
            "awaiting_approval",
            "see that its agent runs (trunkline-agent status), then clone the job",
        )
        return Move(JobState.FAILED, why)
    return None


def _place(job: JobView, idle_workers: Sequence[str], *, online: int) -> Action | None:
    if job.desired is Desired.PAUSE:
        why = Why("paused", _PLATFORM, "was asked to pause", "queued", "resume it")
        return Move(JobState.PAUSED, why)
    if job.last_worker in idle_workers and job.last_worker is not None:
        return Assign(job.last_worker)  # its trunk may still be loaded there
    if idle_workers:
        return Assign(idle_workers[0])
    if online:
        return Explain(Why("busy", "workers", "all are busy", "queued", "it begins when one is free"))
    return Explain(Why("no_worker", "workers", "none is online", "queued", "start one: trunkline worker"))


def _look_after(job: JobView, *, now: datetime) -> Action | None:
    lease = job.lease
    if lease is None:
        return Reclaim(Why("lease_gone", _PLATFORM, "nobody holds the lease", job.state.value, "placed anew"))
    if not lease.is_holder_alive:
        what = "restarted, or was logged out or revoked"
        return Reclaim(Why("worker_gone", lease.worker, what, job.state.value, "goes on from the last round"))
    if now > lease.expires_at:
        what = "did not renew its lease in time"
        return Reclaim(
            Why("lease_expired", lease.worker, what, job.state.value, "goes on from the last round")
        )
    return None if lease.is_dispatched else Dispatch()


def _go_on(job: JobView) -> Action | None:
    """A worker may obey a wish to pause that was taken back meanwhile."""
    if job.desired is not Desired.RUN:
        return None
    return Move(
        JobState.QUEUED, Why("resumed", _PLATFORM, "was asked to go on", "paused", "a worker takes it up")
    )


def _finish(job: JobView, *, now: datetime) -> Action | None:
    missing = [silo.name for silo in job.silos if not silo.is_finished]
    if not missing:
        why = Why("completed", "silos", "all have their results", "finishing", "export them at each silo")
        return Move(JobState.COMPLETED, why)
    if now > job.since + job.patience:
        # The training is done and the trunk's result is in the store: a silo's tail end takes nothing away.
        why = Why(
            "completed_without",
            missing[0],
            f"has not fetched its result yet ({len(missing)} of {len(job.silos)} silos)",
            "finishing",
            "the trunk's result is kept; start the agent, and export it there",
        )
        return Move(JobState.COMPLETED, why)
    return None
