"""Makes reality match the table of states: looks at every job that has not ended, and takes the next step.

Each step is a transaction of its own that looks again before it writes; a task is sent after the commit.
What was left half done by a crash is found at the next look.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from backend.db.absence import is_away, log_failed_look
from backend.db.models import Job, JobState, Lease, PartyKind, Worker
from backend.events import EventKind, emit
from backend.generations.reconciling import give_generations_time, reconcile_generations
from backend.jobs.decisions import (
    Action,
    Assign,
    Dispatch,
    Explain,
    GoOnWithout,
    Move,
    Reclaim,
    decide,
)
from backend.jobs.dispatch import Dispatcher
from backend.jobs.lost_silos import go_on_without_revoked
from backend.jobs.moves import Why, explain, move, release_replica
from backend.jobs.overview import ActiveJob, active_jobs, crew_of
from backend.jobs.placing import WorkerView, in_turn
from backend.jobs.replicas import layout_of, next_epoch
from backend.jobs.repository import find_lease, lock_job, worker_of
from backend.jobs.state import HOSTED
from backend.jobs.stepping import step_each
from backend.parties.repository import find_party
from backend.server import Server
from splitlearn.control_plane.broker import AVERAGE_TASK, TASK_NAME
from splitlearn.control_plane.schemas import DispatchBody
from splitlearn.errors import LinkError

_LOOK_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.05
_MAX_SHARE = 0.2
"""Of a core: every commit wakes this thread, and it must not look all the time where there are many."""
_log = structlog.get_logger("backend.reconciler")


@dataclass(frozen=True, slots=True)
class Errand:
    """A task to be sent: to whom, about which lease, and its name."""

    worker: str
    body: DispatchBody
    task: str


class Reconciler:
    """A thread that reconciles until it is stopped.

    Args:
        server: The control plane's world.
        dispatcher: Sends tasks.
        may_work: Asked before each look: whether this process is the one that reconciles. Two at once
            would do no harm, for each step looks again under the job's lock; but they would do it twice.
    """

    def __init__(
        self, server: Server, dispatcher: Dispatcher, *, may_work: Callable[[], bool] = lambda: True
    ) -> None:
        self._server, self._dispatcher, self._may_work = server, dispatcher, may_work
        self._changed = server.bus.thread_listener()
        self._stopped = threading.Event()
        self._was_there = False
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the step that is under way."""
        self._stopped.set()
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._changed.clear()
            is_broker_there, began = True, time.monotonic()
            try:
                is_broker_there = self._look()
            except Exception as error:  # noqa: BLE001 - a bug in one look must not end all that follow
                log_failed_look(_log, "reconciling_failed", error)
                self._was_there = self._was_there and not is_away(error)
            # What this thread writes itself wakes it too: a broker that is away would be asked all the time.
            pause = max(_SHORTEST_PAUSE_SECONDS, (time.monotonic() - began) / _MAX_SHARE)
            self._stopped.wait(min(pause, _LOOK_SECONDS) if is_broker_there else _LOOK_SECONDS)
            self._changed.wait(_LOOK_SECONDS)

    def _look(self) -> bool:
        """Reconcile where it is this process's turn; return whether the broker took all tasks."""
        if not self._may_work():
            self._was_there = False
            return True
        if not self._was_there:
            give_time(self._server)
            self._was_there = True
        return reconcile(self._server, self._dispatcher)


def give_time(server: Server) -> None:
    """Let leases that workers hold last as if they had just been renewed.

    Called when this begins, or when the database is back: who could not renew meanwhile is not silent.
    """
    until = server.now() + timedelta(seconds=server.settings.lease_seconds)
    held = (Lease.released_at.is_(None), Lease.renewed_at.is_not(None), Lease.expires_at < until)
    with server.database.write(quietly=True) as session:
        session.execute(update(Lease).where(*held).values(expires_at=until))
        give_generations_time(session, until=until)


def reconcile(server: Server, dispatcher: Dispatcher) -> bool:
    """Look at every job once; return whether the broker took all tasks."""
    is_broker_there = step_each(
        _jobs_to_step(server),
        partial(_step, server, dispatcher),
        explain=partial(_explain_broker, server),
        what="job",
    )
    # Training comes first: a session gets what is left.
    return reconcile_generations(server, dispatcher) and is_broker_there


def _step(server: Server, dispatcher: Dispatcher, job_id: uuid.UUID) -> None:
    to_send: Errand | None = None
    with server.database.write() as session:
        job = lock_job(session, job_id)
        action = _decide_again(session, server, job_id)
        if job is None or action is None:
            return
        to_send = _act(session, server, job, action)
    if to_send is not None:
        dispatcher.send(to_send.worker, to_send.body, task=to_send.task)
        with server.database.write() as session:
            _note_dispatch(session, job_id, to_send.body, now=server.now())


def _jobs_to_step(server: Server) -> list[uuid.UUID]:
    """Return the jobs about which something is to be done, as far as can be seen without a lock."""
    now = server.now()
    with server.database.read() as session:
        jobs = active_jobs(session)
        organizations = {job.organization_id for job in jobs}
        crews = {each: crew_of(session, server.settings, each, now=now) for each in organizations}
    return [job.id for job in _in_turn(jobs) if _decide(job, crews[job.organization_id], now=now) is not None]


def _in_turn(jobs: Sequence[ActiveJob]) -> list[ActiveJob]:
    """Return jobs with those that wait for workers last, in the order in which they get them."""
    hosted: Counter[Hashable] = Counter(job.project for job in jobs if job.view.state in HOSTED)
    waiting = [job for job in jobs if job.view.state is JobState.QUEUED]
    others = [job for job in jobs if job.view.state is not JobState.QUEUED]
    return [*others, *in_turn(waiting, hosted_of=lambda project: hosted[project])]


def _decide_again(session: Session, server: Server, job_id: uuid.UUID) -> Action | None:
    """Decide under the job's lock, by what is true now."""
    now = server.now()
    for job in active_jobs(session, only=job_id):
        return _decide(job, crew_of(session, server.settings, job.organization_id, now=now), now=now)
    return None


def _decide(job: ActiveJob, crew: Sequence[WorkerView], *, now: datetime) -> Action | None:
    action = decide(job.view, crew, now=now)
    if isinstance(action, Explain) and action.why.code == job.reason_code:
        return None
    return action


def _act(session: Session, server: Server, job: Job, action: Action) -> Errand | None:
    now = server.now()
    match action:
        case Move():
            move(session, job, action.state, action.why, now=now)
        case Reclaim():
            _reclaim(session, job, action, now=now)
        case GoOnWithout():
            go_on_without_revoked(session, job, action.silos, now=now)
        case Assign():
            return _assign(session, server, job, action, now=now)
        case Dispatch():
            lease = find_lease(session, job.id, action.replica)
            assert lease is not None
            return _errand(session, job, lease)
        case Explain():
            explain(job, action.why, now=now)
    return None


def _reclaim(session: Session, job: Job, action: Reclaim, *, now: datetime) -> None:
    lease = find_lease(session, job.id, action.replica)
    if layout_of(job.spec_bytes).is_replicated and lease is not None and lease.released_at is None:
        release_replica(session, job, lease, action.why, now=now)
    else:
        move(session, job, JobState.QUEUED, action.why, now=now)


def _assign(session: Session, server: Server, job: Job, action: Assign, *, now: datetime) -> Errand:
    name, replica = action.worker, action.replica
    worker = find_party(session, PartyKind.WORKER, name)
    assert isinstance(worker, Worker)
    lease, epoch = find_lease(session, job.id, replica), next_epoch(session, job)
    if lease is None:
        lease = Lease(job_id=job.id, replica=replica, worker_id=worker.id, epoch=0, expires_at=now)
        session.add(lease)
    lease.worker_id, lease.worker_epoch = worker.id, worker.epoch
    lease.epoch = epoch
    lease.expires_at = now + timedelta(seconds=server.settings.pickup_seconds)
    lease.released_at = lease.dispatched_at = lease.renewed_at = None
    lease.round = lease.step = 0
    session.flush()
    is_replicated = layout_of(job.spec_bytes).is_replicated
    told = {"worker": name, "epoch": lease.epoch, **({"replica": replica} if is_replicated else {})}
    emit(session, job.project_id, EventKind.LEASE_GRANTED, body=told, now=now, job_id=job.id)
    if job.state is JobState.QUEUED:
        move(session, job, JobState.PREPARING, _why_leased(job, lease, name), now=now)
    return _errand(session, job, lease)


def _why_leased(job: Job, lease: Lease, worker: str) -> Why:
    layout, where = layout_of(job.spec_bytes), f"epoch {lease.epoch}"
    if lease.replica == layout.meeting:
        return Why("leased", worker, "was given the round to average", where, "the next round follows")
    which = f"replica {lease.replica} of the trunk" if layout.is_replicated else "the trunk"
    return Why("leased", worker, f"was given {which}", where, "it loads the trunk, silos join")


def _errand(session: Session, job: Job, lease: Lease) -> Errand:
    is_meeting = lease.replica == layout_of(job.spec_bytes).meeting
    body = DispatchBody(
        job=str(lease.job_id),
        replica=lease.replica,
        epoch=lease.epoch,
        correlation_id=job.correlation_id,
    )
    return Errand(worker_of(session, lease).name, body, AVERAGE_TASK if is_meeting else TASK_NAME)


def _note_dispatch(session: Session, job_id: uuid.UUID, sent: DispatchBody, *, now: datetime) -> None:
    lock_job(session, job_id)
    lease = find_lease(session, job_id, sent.replica)
    if lease is not None and lease.epoch == sent.epoch:
        lease.dispatched_at = now


def _explain_broker(server: Server, job_id: uuid.UUID, error: LinkError) -> None:
    why = Why("broker", "broker", error.message, "preparing", "sent again in a moment")
    with server.database.write() as session:
        job = lock_job(session, job_id)
        if job is not None and job.state is JobState.PREPARING:
            explain(job, why, now=server.now())
