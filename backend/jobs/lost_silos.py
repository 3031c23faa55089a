"""Silos that a job goes on without, where its specification says ``on_lost_silo: continue``.

A silo is lost when it was away for longer than patience, or was revoked, and at least ``min_silos`` are
left. It stays lost: its own blocks are those of an earlier round. Rounds are trained without it from the last
common one on, and the event of each committed round names who took part.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, JobState, Silo
from backend.events import EventKind, emit
from backend.jobs.moves import Why, move
from backend.jobs.replicas import replica_of
from backend.jobs.repository import newest_commit, silos_of
from backend.jobs.state import HOSTED
from splitlearn.spec import JobSpec

LOST: Final = "lost"
"""How the part of a lost silo came out."""
SILO_LOST: Final = "silo_lost"
"""Why a job is queued again without a silo."""


def lost_silos(session: Session, job_id: uuid.UUID) -> tuple[str, ...]:
    """Return the names of a job's lost silos, in the roster's order."""
    return tuple(silo.name for part, silo in silos_of(session, job_id) if part.finish_outcome == LOST)


def present_silos(session: Session, job_id: uuid.UUID) -> tuple[str, ...]:
    """Return the names of the silos that a round is trained with, in the roster's order."""
    return tuple(silo.name for part, silo in silos_of(session, job_id) if part.finish_outcome != LOST)


def go_on_without(session: Session, job: Job, away: Collection[str], *, now: datetime) -> Why | None:
    """Give silos up that were away for longer than patience, if the job may go on without them.

    Returns:
        Why the job is queued again; None where it has to wait: it says so, or too few would be left.
    """
    spec = JobSpec.parse(job.spec_bytes)
    here = [(part, silo) for part, silo in silos_of(session, job.id) if part.finished_at is None]
    gone = [(part, silo) for part, silo in here if silo.name in away]
    if spec.on_lost_silo != "continue" or not gone or len(here) - len(gone) < spec.min_silos:
        return None
    return _give_up(
        session,
        job,
        gone,
        what=f"was away for longer than {spec.patience_seconds:g} s (patience_seconds)",
        now=now,
    )


def go_on_without_revoked(session: Session, job: Job, names: Collection[str], *, now: datetime) -> None:
    """Give revoked silos up; a job that is hosted is queued, and begins again without them."""
    gone = [(part, silo) for part, silo in silos_of(session, job.id) if silo.name in names]
    why = _give_up(session, job, gone, what="was revoked", now=now)
    if job.state in HOSTED:
        move(session, job, JobState.QUEUED, why, now=now)


def _give_up(
    session: Session, job: Job, gone: Sequence[tuple[JobSilo, Silo]], *, what: str, now: datetime
) -> Why:
    newest = newest_commit(session, job, replica_of(job, gone[0][0]))
    after_round = 0 if newest is None else newest[0].number
    for part, silo in gone:
        part.finish_outcome, part.finish_code, part.finished_at = LOST, SILO_LOST, now
        part.finish_message = (
            f"it {what}; the job goes on without it after round {after_round} (on_lost_silo)"
        )
        told = {"silo": silo.name, "after_round": after_round}
        emit(session, job.project_id, EventKind.SILO_LOST, body=told, now=now, job_id=job.id)
    next_ = f"goes on without it after round {after_round}, as on_lost_silo says"
    return Why(SILO_LOST, ", ".join(silo.name for _, silo in gone), what, f"round {after_round + 1}", next_)
