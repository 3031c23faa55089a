"""Taking a silo's announcements, and asking after them."""

import uuid
from collections import Counter
from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.datasets.repository import datasets_of, find_announced
from backend.db.models import Dataset
from backend.errors import InvalidRequestError
from splitlearn.control_plane.schemas import DatasetAnnouncement, DatasetsBody


def announce(
    session: Session, silo_id: uuid.UUID, body: DatasetsBody, *, actor: Actor, now: datetime
) -> None:
    """Take the whole list of a silo's data sets; what it leaves out is withdrawn.

    Saying the same again changes nothing but the moment of the announcement.

    Raises:
        InvalidRequestError: A name is listed twice.
    """
    _refuse_doubled(body)
    known = {row.name: row for row in datasets_of(session, silo_id)}
    before = {name: _facts(row) for name, row in known.items() if row.withdrawn_at is None}
    for announced in body.datasets:
        row = known.get(announced.name)
        if row is None:
            row = Dataset(silo_id=silo_id, name=announced.name)
            session.add(row)
            known[announced.name] = row
        _write(row, announced, now=now)
    named = {announced.name for announced in body.datasets}
    for name in before.keys() - named:
        known[name].withdrawn_at = now
    after = {name: _facts(known[name]) for name in named}
    if after != before:
        record(
            session,
            actor,
            at=now,
            action="announce_datasets",
            subject_kind="silo",
            subject_name=actor.name,
            details={"datasets": sorted(named), "withdrawn": sorted(before.keys() - named)},
        )


def announced(session: Session, silo_id: uuid.UUID, name: str) -> Dataset | None:
    """Return a silo's data set of this name, if it announces it now."""
    return find_announced(session, silo_id, name)


def _refuse_doubled(body: DatasetsBody) -> None:
    counts = Counter(dataset.name for dataset in body.datasets)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise InvalidRequestError(f"datasets: the name {doubled[0]!r} is listed twice; each needs its own")


def _write(row: Dataset, announced: DatasetAnnouncement, *, now: datetime) -> None:
    row.task = announced.task
    row.num_rows = announced.num_rows
    row.schema_digest = bytes.fromhex(announced.schema_digest)
    row.announced_at = now
    row.withdrawn_at = None


def _facts(row: Dataset) -> tuple[str, int, bytes]:
    return row.task, row.num_rows, row.schema_digest
