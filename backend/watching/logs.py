"""Keeping and finding what parties tell of a job; of each party only the newest lines."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.db.models import Job, JobLogLine
from splitlearn.control_plane.schemas import LogLine

LINES_KEPT = 1000
"""Of one party in one job: some hours of training at a line every ten seconds, and every failure of days."""


def keep(session: Session, job_id: uuid.UUID, party: str, lines: Sequence[LogLine], *, now: datetime) -> None:
    """Keep lines; one that is known already changes nothing. The oldest beyond :data:`LINES_KEPT` go."""
    raised = (
        update(Job)
        .where(Job.id == job_id)
        .values(last_log_number=Job.last_log_number + len(lines))
        .returning(Job.last_log_number)
    )
    first = session.execute(raised).scalar_one() - len(lines) + 1
    rows = [
        {"job_id": job_id, "party": party, "number": first + offset, "received_at": now, **line.model_dump()}
        for offset, line in enumerate(lines)
    ]
    table = JobLogLine.__table__
    assert isinstance(table, Table)
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    session.execute(dialect.insert(table).on_conflict_do_nothing(), rows)
    _drop_oldest(session, job_id, party)


def find(
    session: Session, job_id: uuid.UUID, *, party: str | None, after: int, limit: int
) -> Sequence[JobLogLine]:
    """Return a job's lines in the order in which they came, after a number."""
    query = select(JobLogLine).where(JobLogLine.job_id == job_id, JobLogLine.number > after)
    if party is not None:
        query = query.where(JobLogLine.party == party)
    return session.scalars(query.order_by(JobLogLine.number).limit(limit)).all()


def _drop_oldest(session: Session, job_id: uuid.UUID, party: str) -> None:
    of_party = (JobLogLine.job_id == job_id, JobLogLine.party == party)
    newest = select(JobLogLine.number).where(*of_party).order_by(JobLogLine.number.desc())
    last_dropped = session.scalar(newest.offset(LINES_KEPT).limit(1))
    if last_dropped is not None:
        session.execute(delete(JobLogLine).where(*of_party, JobLogLine.number <= last_dropped))
