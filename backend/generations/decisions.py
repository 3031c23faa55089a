"""What should happen next with a session of generation, from what is known of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.db.models import GenerationState
from backend.jobs.decisions import LeaseView
from backend.jobs.moves import Why
from backend.jobs.placing import Need, WorkerView, choose, what_lacks
from splitlearn.control_plane.generation_schemas import TOO_LONG

MAX_HOSTINGS = 5
"""Workers that a session is given at most: one that ends them all must not have every worker in turn."""

_PLATFORM = "control plane"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session may last.

    Attributes:
        silence: A silo that did not ask the control plane for so long is gone.
        longest: At one worker.
        yields_after: So long after the silo's last question the worker is given to training that waits.
    """

    silence: timedelta
    longest: timedelta
    yields_after: timedelta


@dataclass(frozen=True, slots=True)
class GenerationView:
    """A session that has not ended.

    Attributes:
        state: ``waiting`` or ``hosted``.
        silo: Whose it is.
        is_silo_out: It was revoked, or its certificate has ended.
        is_result_there: The job still has a result, and is not trained again.
        heard_at: When the silo asked the control plane last.
        epoch: How many workers have got it so far.
        lease: While it is hosted.
        hosted_at: Since when.
        asked_at: When the silo asked the worker last.
        last_worker: Who hosted it last.
        need: What it asks of a worker; None where that is not known.
        reason_code: Why it is in its state.
    """

    state: GenerationState
    silo: str
    is_silo_out: bool
    is_result_there: bool
    heard_at: datetime
    epoch: int
    lease: LeaseView | None = None
    hosted_at: datetime | None = None
    asked_at: datetime | None = None
    last_worker: str | None = None
    need: Need | None = None
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The session is over."""

    why: Why


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take the lease back; the session waits for another worker."""

    why: Why


@dataclass(frozen=True, slots=True)
class Assign:
    """Lease it to a worker."""

    worker: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the task of the lease that is there."""


@dataclass(frozen=True, slots=True)
class Explain:
    """Nothing to do but to say what is waited for."""

    why: Why


Action = End | TakeBack | Assign | Dispatch | Explain


def decide(
    view: GenerationView, workers: Sequence[WorkerView], limits: Limits, *, is_wanted: bool, now: datetime
) -> Action | None:
    """Return the next thing to do about a session; None when nothing is.

    Args:
        view: The session.
        workers: Its organisation's that are online.
        limits: How long it may last.
        is_wanted: Training waits for the very worker that hosts it.
        now: The server's time.
    """
    end = _end(view, limits, is_wanted=is_wanted, now=now)
    if end is not None:
        return end
    if view.state is GenerationState.WAITING:
        return _place(view, workers)
    return _look_after(view, now=now)


def given_back(epoch: int, why: Why) -> End | TakeBack:
    """Return what follows where a worker lost a session, or gave it back with work left.

    Args:
        epoch: How many workers have had it.
        why: What happened.
    """
    if epoch < MAX_HOSTINGS:
        return TakeBack(why)
    what = f"{why.what}; {epoch} workers in a row did not finish it"
    return End(Why("gave_up", why.who, what, why.where, "see the workers' logs, then begin another"))


def _end(view: GenerationView, limits: Limits, *, is_wanted: bool, now: datetime) -> End | None:
    is_hosted = view.state is GenerationState.HOSTED
    ends = (
        (view.is_silo_out, _silo_revoked),
        (not view.is_result_there, _no_result),
        (now > view.heard_at + limits.silence, _silo_silent),
        (is_hosted and view.hosted_at is not None and now > view.hosted_at + limits.longest, _too_long),
        (is_wanted and view.asked_at is not None and now >= view.asked_at + limits.yields_after, _needed),
    )
    return next((End(why(view, limits)) for is_so, why in ends if is_so), None)


def _silo_revoked(view: GenerationView, _: Limits) -> Why:
    what = "was revoked, or its certificate has ended"
    return Why("silo_revoked", view.silo, what, view.state.value, "enrol it again")


def _no_result(view: GenerationView, _: Limits) -> Why:
    what = "has no result any more, or is trained again"
    return Why("no_result", "job", what, view.state.value, "wait for its end, then begin another")


def _silo_silent(view: GenerationView, limits: Limits) -> Why:
    what = f"was not heard of for {limits.silence.total_seconds():g} s"
    next_ = "begin another: trunkline-agent generate"
    return Why("silo_silent", view.silo, what, view.state.value, next_)


def _too_long(view: GenerationView, limits: Limits) -> Why:
    what = f"ended it after {limits.longest.total_seconds():g} s (TRUNKLINE_GENERATION_SECONDS)"
    next_ = "ask for fewer prompts at once, or begin another"
    return Why(TOO_LONG, _PLATFORM, what, view.state.value, next_)


def _needed(view: GenerationView, limits: Limits) -> Why:
    what = f"asked nothing for {limits.yields_after.total_seconds():g} s, and training waits"
    next_ = "begin another: it waits for a worker"
    return Why("needed_elsewhere", view.silo, what, view.state.value, next_)


def _look_after(view: GenerationView, *, now: datetime) -> Action | None:
    lease = view.lease
    if lease is None:
        why = Why("lease_gone", _PLATFORM, "nobody holds the lease", "hosted", "another worker gets it")
        return given_back(view.epoch, why)
    if not lease.is_holder_alive:
        what = "restarted, or was logged out or revoked"
        why = Why("worker_gone", lease.worker, what, "hosted", "another worker gets it")
        return given_back(view.epoch, why)
    if now > lease.expires_at:
        what = "did not renew its lease in time"
        why = Why("lease_expired", lease.worker, what, "hosted", "another worker gets it")
        return given_back(view.epoch, why)
    is_forgotten = lease.send_again_at is not None and now >= lease.send_again_at
    return Dispatch() if is_forgotten or not lease.is_dispatched else None


def _place(view: GenerationView, workers: Sequence[WorkerView]) -> Action:
    chosen = choose(workers, view.need, last_worker=view.last_worker)
    return Assign(chosen.name) if chosen is not None else Explain(_why_unplaced(view, workers))


def _why_unplaced(view: GenerationView, workers: Sequence[WorkerView]) -> Why:
    if not workers:
        return Why("no_worker", "workers", "none is online", "waiting", "start one: trunkline worker")
    lacks = {worker.name: what_lacks(worker, view.need) for worker in workers}
    able = [worker for worker in workers if lacks[worker.name] is None]
    if not able:
        what = "cannot host the trunk: " + "; ".join(f"{name}: {lack}" for name, lack in lacks.items())
        return Why("no_capable_worker", "workers", what, "waiting", "start another worker")
    if all(worker.is_drained for worker in able):
        what = f"that could host the trunk are drained: {', '.join(worker.name for worker in able)}"
        return Why("workers_drained", "workers", what, "waiting", f"trunkline workers undrain {able[0].name}")
    return Why(
        "busy", "workers", "all are busy, training comes first", "waiting", "it begins when one is free"
    )
