"""What should happen next with each job, from what is known of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from backend.db.models import Approval, Desired, JobState
from backend.jobs.moves import Why
from backend.jobs.placing import Need, WorkerView, choose, what_lacks


@dataclass(frozen=True, slots=True)
class SiloView:
    """A silo's part: its word on the job, whether it is through, and whether it still belongs.

    Attributes:
        heard_at: When its agent spoke last; None before its first word.
    """

    name: str
    approval: Approval
    is_finished: bool
    is_revoked: bool = False
    heard_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease that was not released.

    Attributes:
        worker: Who holds it.
        is_holder_alive: Whether the process that was leased still speaks for the worker.
        expires_at: When it ends, unless renewed.
        is_dispatched: Whether its task was sent.
        send_again_at: When it is sent once more, for a broker may forget; None once a worker has taken it up.
    """

    worker: str
    is_holder_alive: bool
    expires_at: datetime
    is_dispatched: bool
    send_again_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One of several trunks of a job, or the meeting at which they are averaged.

    Attributes:
        number: From 0; the meeting's comes after the last trunk's.
        lease: None while nobody hosts it.
        committed: The last round that it has contributed to, or that was averaged.
        is_done: Whether its silos have evaluated the last average.
        last_worker: Who held its lease last.
    """

    number: int
    lease: LeaseView | None
    committed: int
    is_done: bool = False
    last_worker: str | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job that has not ended.

    Attributes:
        lease: Of the one trunk; None with replicas.
        replicas: Where the trunk has several.
        meeting: Who averages these; None where there are none.
        meeting_evaluates: Whether that takes the trunk, too.
        since: When it came into its state.
        patience: How long a wait without progress may last.
        last_worker: Who held its lease last.
        need: What it asks of a worker; None where that is not known, or not asked about.
        reason_code: Why it is in its state.
        min_silos: With so many it goes on where others are lost; None where it does not.
    """

    state: JobState
    desired: Desired
    since: datetime
    patience: timedelta
    silos: tuple[SiloView, ...]
    lease: LeaseView | None
    last_worker: str | None = None
    need: Need | None = None
    reason_code: str = ""
    replicas: tuple[ReplicaView, ...] = ()
    meeting: ReplicaView | None = None
    meeting_evaluates: bool = False
    min_silos: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Bring the job into another state."""

    state: JobState
    why: Why


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Take the lease back, and queue the job again; of several replicas, where no other is hosted."""

    why: Why
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Assign:
    """Lease the trunk to a worker."""

    worker: str
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the task of the lease that is there."""

    replica: int = 0


@dataclass(frozen=True, slots=True)
class Explain:
    """Nothing to do but to say what is waited for."""

    why: Why


@dataclass(frozen=True, slots=True)
class GoOnWithout:
    """Give these silos up; where the job is hosted it begins again with the others."""

    silos: tuple[str, ...]


SILO_AWAY = "silo_away"
"""Reason of a job that was queued because silos made no progress within patience."""

Action = Move | Reclaim | Assign | Dispatch | GoOnWithout | Explain

_PLATFORM = "control plane"


def decide(job: JobView, workers: Sequence[WorkerView], *, now: datetime) -> Action | None:
    """Return the next thing to do about a job; None when nothing is.

    Args:
        job: The job.
        workers: Its organisation's that are online.
        now: The server's time.
    """
    if job.desired is Desired.CANCEL:
        why = Why("cancelled", _PLATFORM, "was asked to cancel", job.state.value, "retry or clone it")
        return Move(JobState.CANCELLED, why)
    if (revoked := _revoked(job)) is not None:
        return revoked
    action: Action | None = None
    match job.state:
        case JobState.AWAITING_APPROVAL:
            action = _await_approval(job, now=now)
        case JobState.QUEUED:
            action = _place(job, workers)
        case JobState.PREPARING | JobState.RUNNING:
            if job.replicas:
                action = _look_after_replicas(job, workers, now=now)
            else:
                action = _look_after(job, job.lease, now=now)
        case JobState.PAUSED:
            action = _go_on(job)
        case JobState.FINISHING:
            action = _finish(job, now=now)
    return action


def _revoked(job: JobView) -> Action | None:
    """Return what a revoked silo brings about; in a job that is trained it has nothing left to do."""
    waited_for = [silo for silo in job.silos if not silo.is_finished]
    revoked = tuple(silo.name for silo in waited_for if silo.is_revoked)
    if not revoked or job.state is JobState.FINISHING:
        return None
    num_left = len(waited_for) - len(revoked)
    may_lose = job.min_silos is not None and num_left >= max(job.min_silos, 1)
    if may_lose and job.state is not JobState.AWAITING_APPROVAL:
        return GoOnWithout(revoked)
    next_ = "clone the job without it; or invite it anew, and clone the job then"
    why = Why("silo_revoked", revoked[0], "was revoked and cannot go on", job.state.value, next_)
    return Move(JobState.FAILED, why)


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


def _place(job: JobView, workers: Sequence[WorkerView]) -> Action | None:
    if job.desired is Desired.PAUSE:
        why = Why("paused", _PLATFORM, "was asked to pause", "queued", "resume it")
        return Move(JobState.PAUSED, why)
    if job.reason_code == SILO_AWAY and not _are_silos_back(job):
        return None  # no worker is held for a silo that is not there; the reason says who is waited for
    replica = next(iter(due_replicas(job)), None)
    need = _need_now(job)
    last_worker = job.last_worker if replica is None else replica.last_worker
    chosen = choose(workers, need, last_worker=last_worker)
    if chosen is None:
        return Explain(_why_unplaced(need, workers))
    return Assign(chosen.name, 0 if replica is None else replica.number)


def _need_now(job: JobView) -> Need | None:
    """Return what is asked of the next worker: to average takes no trunk, and any can."""
    return None if is_meeting_due(job) and not job.meeting_evaluates else job.need


def is_meeting_due(job: JobView) -> bool:
    """Whether every replica has committed a round that is not averaged yet, and has given its lease back."""
    meeting = job.meeting
    return (
        meeting is not None
        and meeting.lease is None
        and meeting.committed < _common_round(job)
        and all(replica.lease is None for replica in job.replicas)
    )


def due_replicas(job: JobView) -> list[ReplicaView]:
    """Return the replicas that wait for a worker, and for nothing else; or the meeting alone, where it does.

    A replica is due once its last round was averaged: the average is what the next round begins with, or what
    is evaluated after the last.
    """
    common = _common_round(job)
    if job.meeting is not None and (job.meeting.lease is not None or job.meeting.committed < common):
        return [_seen_last(job, job.meeting)] if is_meeting_due(job) else []
    return [
        replica
        for replica in job.replicas
        if replica.committed == common and replica.lease is None and not replica.is_done
    ]


def _common_round(job: JobView) -> int:
    return min((replica.committed for replica in job.replicas), default=0)


def _seen_last(job: JobView, meeting: ReplicaView) -> ReplicaView:
    """Return the meeting, which goes to a worker that has just hosted a replica: some of it lies there."""
    return replace(meeting, last_worker=job.replicas[-1].last_worker)


def _why_unplaced(need: Need | None, workers: Sequence[WorkerView]) -> Why:
    if not workers:
        return Why("no_worker", "workers", "none is online", "queued", "start one: trunkline worker")
    lacks = {worker.name: what_lacks(worker, need) for worker in workers}
    able = [worker for worker in workers if lacks[worker.name] is None]
    if not able:
        what = "cannot host the trunk: " + "; ".join(f"{name}: {lack}" for name, lack in lacks.items())
        next_ = "start another worker, or clone the job with a smaller trunk: trunkline jobs plan tells more"
        return Why("no_capable_worker", "workers", what, "queued", next_)
    drained = [worker.name for worker in able if worker.is_drained]
    if len(drained) == len(able):
        what = f"that could host the trunk are drained: {', '.join(drained)}"
        next_ = f"trunkline workers undrain {drained[0]}, or start another one"
        return Why("workers_drained", "workers", what, "queued", next_)
    return Why("busy", "workers", "all are busy", "queued", "it begins when one is free, or at its turn")


def _are_silos_back(job: JobView) -> bool:
    """Whether every silo was heard of since the job began to wait; their agents speak every 20 s at least."""
    waited_for = (silo for silo in job.silos if not silo.is_finished)
    return all(silo.heard_at is not None and silo.heard_at > job.since for silo in waited_for)


def _look_after_replicas(job: JobView, workers: Sequence[WorkerView], *, now: datetime) -> Action | None:
    hosted = [each for each in (*job.replicas, job.meeting) if each is not None and each.lease is not None]
    for replica in hosted:
        action = _look_after(job, replica.lease, replica=replica.number, now=now)
        if action is not None:
            return action
    due = due_replicas(job) if job.desired is Desired.RUN else []
    need = _need_now(job)
    chosen = choose(workers, need, last_worker=due[0].last_worker) if due else None
    if chosen is not None:
        return Assign(chosen.name, due[0].number)
    return None if hosted else _look_after(job, None, now=now)


def _look_after(job: JobView, lease: LeaseView | None, *, replica: int = 0, now: datetime) -> Action | None:
    if lease is None:
        why = Why("lease_gone", _PLATFORM, "nobody holds the lease", job.state.value, "placed anew")
        return Reclaim(why, replica)
    if not lease.is_holder_alive:
        what = "restarted, or was logged out or revoked"
        why = Why("worker_gone", lease.worker, what, job.state.value, "goes on from the last round")
        return Reclaim(why, replica)
    if now > lease.expires_at:
        what = "did not renew its lease in time"
        why = Why("lease_expired", lease.worker, what, job.state.value, "goes on from the last round")
        return Reclaim(why, replica)
    is_forgotten = lease.send_again_at is not None and now >= lease.send_again_at
    if is_forgotten or not lease.is_dispatched:
        return Dispatch(replica)
    if job.state is JobState.PREPARING and now > job.since + job.patience:
        what = f"has not begun a round for {job.patience.total_seconds():g} s (patience_seconds)"
        next_ = "it goes on by itself; see what its worker and silos tell: trunkline jobs logs ID --party all"
        return Explain(Why("slow_start", lease.worker, what, "preparing", next_))
    return None


def _go_on(job: JobView) -> Action | None:
    """A worker may obey a wish to pause that was taken back meanwhile."""
    if job.desired is not Desired.RUN:
        return None
    return Move(
        JobState.QUEUED, Why("resumed", _PLATFORM, "was asked to go on", "paused", "a worker takes it up")
    )


def _finish(job: JobView, *, now: datetime) -> Action | None:
    missing = [silo.name for silo in job.silos if not silo.is_finished and not silo.is_revoked]
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
