"""Finding events."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Event


def events_after(
    session: Session, project_id: uuid.UUID, *, after: int, job_id: uuid.UUID | None, limit: int
) -> Sequence[Event]:
    """Return a project's events, or one job's, after a number, in order."""
    query = select(Event).where(Event.project_id == project_id, Event.number > after)
    if job_id is not None:
        query = query.where(Event.job_id == job_id)
    return session.scalars(query.order_by(Event.number).limit(limit)).all()
