"""A worker's lease on a trunk: asked for, renewed, committed under, given back.

Every word carries the epoch under which it is said; a word of another epoch changes nothing.
"""

import base64
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend.artifacts.service import attach, drop_old_checkpoints
from backend.artifacts.store import ArtifactStore
from backend.db.models import Artifact, ArtifactKind, Job, JobState, Lease, Round, RoundState, Worker
from backend.events import EventKind, emit
from backend.jobs.decisions import SILO_AWAY
from backend.jobs.errors import LeaseLostError, NoSuchRoundError, RoundCommittedError
from backend.jobs.lost_silos import go_on_without, lost_silos, present_silos
from backend.jobs.moves import Why, move, release_replica
from backend.jobs.replicas import are_all_done, average_of, common_round, contributions_to, layout_of
from backend.jobs.repository import find_lease, lock_job, newest_commit
from backend.jobs.rounds import abandon_after, drop_checkpoint
from backend.jobs.silo_part import blob_of, wants
from backend.jobs.starting import start_of
from backend.jobs.state import HOSTED
from backend.jobs.stuck import STUCK, was_stuck_before
from backend.jobs.turns import is_turn_over
from backend.settings import Settings
from splitlearn.control_plane.schemas import (
    BlobRef,
    Checkpoint,
    CommitBody,
    DesiredState,
    LeaseAnswer,
    ReleaseBody,
    RenewAnswer,
    RenewBody,
    RoundToAverage,
)
from splitlearn.spec import JobSpec

_MAX_STEP = (1 << 63) - 1  # what a column holds; no job has so many
_LONGEST_SECONDS = 10.0 * 365 * 86400
"""A round that says it took longer is taken for one of so long: no date is before the year 1."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who speaks, about which trunk."""

    job_id: uuid.UUID
    replica: int
    worker_id: uuid.UUID
    worker: str
    worker_epoch: int


def show(session: Session, settings: Settings, holder: Holder, *, epoch: int, now: datetime) -> LeaseAnswer:
    """Tell a dispatched worker what it is to do; the lease lasts from now on.

    Raises:
        LeaseLostError: The dispatch is an old one.
    """
    job, lease = _held(session, holder, epoch=epoch)
    _extend(lease, settings, now=now)
    newest = newest_commit(session, job, holder.replica)
    last_round = 0 if newest is None else newest[0].number
    is_meeting = layout_of(job.spec_bytes).meeting == holder.replica
    return LeaseAnswer(
        job=str(job.id),
        name=job.name,
        replica=lease.replica,
        epoch=lease.epoch,
        valid_seconds=settings.lease_seconds,
        renew_seconds=settings.renew_seconds,
        desired=DesiredState(wants(job).value),
        spec=base64.b64encode(job.spec_bytes).decode(),
        signature=base64.b64encode(job.spec_signature).decode(),
        gateway_url=settings.gateway_urls[0],
        max_resume_round=job.max_resume_round,
        checkpoint=None if newest is None else Checkpoint(round=newest[0].number, blob=_ref(newest[1])),
        lost=lost_silos(session, job.id),
        average=None if is_meeting else _average(session, job, last_round),
        meeting=_meeting(session, job) if is_meeting else None,
        start=None if (start := start_of(session, job)) is None else _ref(start),
    )


def _average(session: Session, job: Job, number: int) -> BlobRef | None:
    """Return what a replica goes on with after its last round, where there are several.

    Raises:
        LeaseLostError: The round is not averaged yet.
    """
    if not layout_of(job.spec_bytes).is_replicated or number == 0:
        return None
    average = average_of(session, job, number)
    if average is None:
        raise LeaseLostError(f"round {number} is not averaged yet; this replica waits for the others")
    return _ref(average)


def _meeting(session: Session, job: Job) -> RoundToAverage:
    """Return the round that the meeting averages, and what the replicas have contributed to it."""
    number = common_round(session, job)
    found = contributions_to(session, job, number)
    return RoundToAverage(round=number, contributions=tuple(_ref(each) for each in found))


def _ref(artifact: Artifact) -> BlobRef:
    return BlobRef(digest=artifact.digest.hex(), num_bytes=artifact.num_bytes)


def renew(
    session: Session, settings: Settings, holder: Holder, body: RenewBody, *, now: datetime
) -> RenewAnswer:
    """Keep a lease. The answer's epoch is higher where a silo began again: the holder follows.

    Raises:
        LeaseLostError: Somebody else holds it, or nobody.
        NoSuchRoundError: The job has fewer rounds.
    """
    job, lease = _held(session, holder, epoch=body.epoch, at_least=True)
    _extend(lease, settings, now=now)
    if body.epoch == lease.epoch:
        _refuse_round_beyond(job, body.round)
        lease.round, lease.step = body.round, min(body.step, _MAX_STEP)
        if job.state is JobState.PREPARING and body.round:
            why = Why(
                "running", holder.worker, "trains the trunk", f"round {body.round}", "rounds are committed"
            )
            move(session, job, JobState.RUNNING, why, now=now)
    return RenewAnswer(
        epoch=lease.epoch,
        valid_seconds=settings.lease_seconds,
        desired=DesiredState(wants(job).value),
        drain=session.get_one(Worker, holder.worker_id).drained_at is not None,
        turn_over=is_turn_over(session, settings, job, lease, now=now),
    )


def commit(
    session: Session,
    settings: Settings,
    store: ArtifactStore,
    holder: Holder,
    body: CommitBody,
    *,
    now: datetime,
) -> bool:
    """Commit a round: once, by the epoch that holds the lease. Saying the same again changes nothing.

    Rounds after this one were trained before their trunk went back: they count no more.

    Returns:
        Whether it is the average of all replicas.

    Raises:
        LeaseLostError: Another epoch holds the lease.
        NoSuchRoundError: The job has fewer rounds.
        RoundCommittedError: This epoch has committed the round with another checkpoint.
        UnknownBlobError: The checkpoint is not in the store.
        QuotaError: The project's share is used up.
    """
    job, lease = _held(session, holder, epoch=body.epoch)
    number, is_meeting = body.checkpoint.round, layout_of(job.spec_bytes).meeting == holder.replica
    _refuse_round_beyond(job, number)
    row = session.get(Round, (job.id, holder.replica, number))
    if row is not None and row.state is RoundState.COMMITTED and row.epoch == body.epoch:
        _refuse_another_checkpoint(session, row, body)
        return is_meeting
    abandon_after(session, job, number, now=now, replica=holder.replica)
    artifact = attach(
        session,
        store,
        settings,
        blob_of(body.checkpoint.blob),
        project_id=job.project_id,
        job_id=job.id,
        kind=ArtifactKind.CHECKPOINT,
        name=f"checkpoint-{holder.replica}-{number}",
        now=now,
    )
    if row is None:
        row = Round(job_id=job.id, replica=holder.replica, number=number)
        session.add(row)
    # Committed by an older epoch: this attempt went back before the round, and what it trained anew counts.
    drop_checkpoint(session, row, now=now)
    row.epoch, row.state, row.checkpoint_id = body.epoch, RoundState.COMMITTED, artifact.id
    row.started_at, row.committed_at = now - timedelta(seconds=min(body.seconds, _LONGEST_SECONDS)), now
    lease.round = max(lease.round, number)
    session.flush()
    if job.max_resume_round is not None and common_round(session, job) > job.max_resume_round:
        job.max_resume_round = None  # every party has this round: whatever came before the retry is gone
    drop_old_checkpoints(session, job.id, holder.replica, keep=settings.checkpoints_kept, now=now)
    kind = EventKind.ROUND_AVERAGED if is_meeting else EventKind.ROUND_COMMITTED
    told = {"round": number, "epoch": body.epoch, "seconds": body.seconds, **_who(session, job, holder)}
    emit(session, job.project_id, kind, body=told, now=now, job_id=job.id)
    return is_meeting


def release(
    session: Session,
    settings: Settings,
    store: ArtifactStore,
    holder: Holder,
    body: ReleaseBody,
    *,
    now: datetime,
) -> None:
    """Take a lease back, and move the job as its end says.

    Raises:
        LeaseLostError: Another epoch holds it.
    """
    # A silo that begins again after the round was committed takes nothing away from that.
    job, lease = _held(session, holder, epoch=body.epoch, at_least=body.outcome == "round_done")
    reason = body.reason
    why = Why(body.code, reason.who, reason.what, reason.where, reason.next)
    layout = layout_of(job.spec_bytes)
    if layout.is_replicated and body.outcome == "completed":
        lease.round = layout.num_rounds + 1
    match body.outcome:
        case "completed" if layout.is_replicated and not are_all_done(session, job, but=holder.replica):
            release_replica(session, job, lease, why, now=now)
        case "completed":
            _keep_result(session, settings, store, job, body.result, now=now)
            move(session, job, JobState.FINISHING, why, now=now)
        case "failed":
            move(session, job, JobState.FAILED, why, now=now)
        case "waiting":
            # Its worker is free for others; the reconciler places it when its silos are heard of again, or
            # at once where it goes on without them.
            waits = replace(why, code=SILO_AWAY)
            lost = go_on_without(session, job, body.away, now=now)
            release_replica(session, job, lease, lost or waits, now=now)
        case "round_done" | "paused" | "cancelled" | "drained" if layout.is_replicated:
            # The others end their rounds; what people want is done when none is hosted any longer.
            release_replica(session, job, lease, why, now=now)
        case "paused":
            move(session, job, JobState.PAUSED, why, now=now)
        case "stuck":
            _release_stuck(session, job, lease, replace(why, code=STUCK), holder, now=now)
        case "cancelled" | "drained" | "round_done":
            # What people wanted decides; the reconciler makes it true.
            move(session, job, JobState.QUEUED, why, now=now)


def _release_stuck(
    session: Session, job: Job, lease: Lease, why: Why, holder: Holder, *, now: datetime
) -> None:
    """Try once more what got stuck: the job, or of several replicas the one; the others are not disturbed."""
    if was_stuck_before(session, job, holder.replica):
        move(session, job, JobState.FAILED, why, now=now)
    elif layout_of(job.spec_bytes).is_replicated:
        told = {"replica": holder.replica, "worker": holder.worker, "epoch": lease.epoch}
        emit(session, job.project_id, EventKind.REPLICA_STUCK, body=told, now=now, job_id=job.id)
        release_replica(session, job, lease, why, now=now)
    else:
        move(session, job, JobState.QUEUED, why, now=now)


def _who(session: Session, job: Job, holder: Holder) -> dict[str, object]:
    """Return which silos a round was trained with, and which replica's it was."""
    layout, here = layout_of(job.spec_bytes), present_silos(session, job.id)
    if not layout.is_replicated:
        return {"silos": here}
    if holder.replica == layout.meeting:
        return {"silos": here, "replica": holder.replica}
    share = JobSpec.parse(job.spec_bytes).shares[holder.replica]
    return {"silos": [name for name in here if name in share], "replica": holder.replica}


def _refuse_round_beyond(job: Job, number: int) -> None:
    last = JobSpec.parse(job.spec_bytes).rounds
    if number > last:
        raise NoSuchRoundError(f"round {number} is beyond the job's last, {last}")


def _refuse_another_checkpoint(session: Session, row: Round, body: CommitBody) -> None:
    known = None if row.checkpoint_id is None else session.get(Artifact, row.checkpoint_id)
    if known is not None and known.digest.hex() != body.checkpoint.blob.digest:
        raise RoundCommittedError(
            f"epoch {body.epoch} has committed round {row.number} with checkpoint {known.digest.hex()}, "
            f"not {body.checkpoint.blob.digest}"
        )


def _keep_result(
    session: Session,
    settings: Settings,
    store: ArtifactStore,
    job: Job,
    result: BlobRef | None,
    *,
    now: datetime,
) -> None:
    if result is None:
        return
    artifact = attach(
        session,
        store,
        settings,
        blob_of(result),
        project_id=job.project_id,
        job_id=job.id,
        kind=ArtifactKind.RESULT,
        name="trunk",
        now=now,
        keep=timedelta(days=settings.result_days),
    )
    job.result_id = artifact.id


def _held(session: Session, holder: Holder, *, epoch: int, at_least: bool = False) -> tuple[Job, Lease]:
    """Return job and lease, locked, if this process holds it under this epoch.

    Args:
        session: The transaction.
        holder: Who asks.
        epoch: Under which it asks.
        at_least: The lease's epoch may have been raised meanwhile.
    """
    job = lock_job(session, holder.job_id)
    lease = find_lease(session, holder.job_id, holder.replica)
    if job is None or lease is None or lease.released_at is not None or job.state not in HOSTED:
        state = "gone" if job is None else job.state.value
        raise LeaseLostError(f"nobody holds a lease on replica {holder.replica} of the job: it is {state}")
    is_mine = (lease.worker_id, lease.worker_epoch) == (holder.worker_id, holder.worker_epoch)
    is_current = epoch <= lease.epoch if at_least else epoch == lease.epoch
    if not (is_mine and is_current):
        raise LeaseLostError(f"the lease is at epoch {lease.epoch}, this was said under epoch {epoch}")
    return job, lease


def _extend(lease: Lease, settings: Settings, *, now: datetime) -> None:
    lease.renewed_at = now
    lease.expires_at = now + timedelta(seconds=settings.lease_seconds)
