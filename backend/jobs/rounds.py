"""Rounds that count, and those that a job went back before."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Artifact, Job, Round, RoundState
from backend.jobs.replicas import layout_of


def kept_rounds(session: Session, job: Job) -> list[int]:
    """Return the committed rounds whose checkpoint stays in the store: every replica's, and the average."""
    layout = layout_of(job.spec_bytes)
    query = (
        select(Round.number)
        .join(Artifact, Round.checkpoint_id == Artifact.id)
        .where(Round.job_id == job.id, Round.state == RoundState.COMMITTED, Artifact.expires_at.is_(None))
        .group_by(Round.number)
        .having(func.count() == layout.num_replicas + layout.is_replicated)
        .order_by(Round.number)
    )
    return list(session.scalars(query).all())


def abandon_after(
    session: Session, job: Job, number: int, *, now: datetime, replica: int | None = None
) -> None:
    """Let no round after this one count any more; their checkpoints expire.

    Args:
        session: The transaction.
        job: Whose rounds.
        number: The last round that counts.
        now: The server's time.
        replica: Of this one alone, and of the averages that it is part of; None for all.
    """
    query = select(Round).where(Round.job_id == job.id)
    meeting = layout_of(job.spec_bytes).meeting
    if replica is None:
        query = query.where(Round.number > number)
    else:
        is_later = (Round.replica == replica) & (Round.number > number)
        # The average of this very round, if there was one, was of what the replica is about to replace.
        holds_it = (Round.replica == meeting) & (Round.number >= number) & (Round.replica != replica)
        query = query.where(is_later | holds_it)
    for row in session.scalars(query).all():
        row.state, row.committed_at = RoundState.ABANDONED, None
        drop_checkpoint(session, row, now=now)


def drop_checkpoint(session: Session, row: Round, *, now: datetime) -> None:
    """Let a round's checkpoint expire; another one, or none, takes its place."""
    artifact = None if row.checkpoint_id is None else session.get(Artifact, row.checkpoint_id)
    row.checkpoint_id = None
    if artifact is not None:
        artifact.expires_at = artifact.expires_at or now
