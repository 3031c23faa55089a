"""Keeping and finding metrics. The key is what a number is of: sending it again replaces it."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Table, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.db.models import Job, Metric
from splitlearn.control_plane.schemas import MetricPoint


def keep(
    session: Session, job_id: uuid.UUID, party: str, points: Sequence[MetricPoint], *, now: datetime
) -> list[MetricPoint]:
    """Keep a batch; of two with the same key the later one counts. What is known already changes nothing.

    The job's row stays locked until the transaction ends, so that numbers become visible in order.

    Returns:
        The points of which nothing was known: not those that were sent again, with whatever value.
    """
    latest = {(point.name, point.round, point.step): point for point in points}
    raised = (
        update(Job)
        .where(Job.id == job_id)
        .values(last_metric_number=Job.last_metric_number + len(latest))
        .returning(Job.last_metric_number)
    )
    last = session.execute(raised).scalar_one()
    rows = [
        {
            "job_id": job_id,
            "party": party,
            "name": point.name,
            "round": point.round,
            "step": point.step,
            "value": point.value,
            "number": last - len(latest) + offset,
            "received_at": now,
        }
        for offset, point in enumerate(latest.values(), 1)
    ]
    table = Metric.__table__
    assert isinstance(table, Table)
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table)
    added = insert.on_conflict_do_nothing().returning(table.c.name, table.c.round, table.c.step)
    new = {(row.name, row.round, row.step) for row in session.execute(added, rows)}
    known = [row for row in rows if (row["name"], row["round"], row["step"]) not in new]
    if known:
        replaced = {name: insert.excluded[name] for name in ("value", "number", "received_at")}
        keys = [column.name for column in table.primary_key]
        changes = table.c.value != insert.excluded.value
        session.execute(
            insert.on_conflict_do_update(index_elements=keys, set_=replaced, where=changes), known
        )
    return [point for key, point in latest.items() if key in new]


def find(
    session: Session, job_id: uuid.UUID, *, party: str | None, name: str | None, after: int, limit: int
) -> Sequence[Metric]:
    """Return a job's metrics in the order in which they came, after a number."""
    query = select(Metric).where(Metric.job_id == job_id, Metric.number > after)
    if party is not None:
        query = query.where(Metric.party == party)
    if name is not None:
        query = query.where(Metric.name == name)
    return session.scalars(query.order_by(Metric.number).limit(limit)).all()
