"""Queries of data sets. One that was withdrawn keeps its row: jobs of the past name it."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Dataset, Silo


def datasets_of(session: Session, silo_id: uuid.UUID) -> Sequence[Dataset]:
    """Return all data sets that a silo ever announced, those withdrawn too."""
    return session.scalars(select(Dataset).where(Dataset.silo_id == silo_id)).all()


def find_announced(session: Session, silo_id: uuid.UUID, name: str) -> Dataset | None:
    """Return a silo's data set of this name, if it announces it now."""
    query = select(Dataset).where(
        Dataset.silo_id == silo_id, Dataset.name == name, Dataset.withdrawn_at.is_(None)
    )
    return session.scalars(query).one_or_none()


def announced_in(
    session: Session,
    organization_id: uuid.UUID,
    *,
    silo: str | None,
    after: tuple[str, str],
    limit: int,
) -> Sequence[tuple[Silo, Dataset]]:
    """Return what an organisation's silos announce now, by silo and name, from behind ``after`` on."""
    after_silo, after_name = after
    query = (
        select(Silo, Dataset)
        .join(Dataset, Dataset.silo_id == Silo.id)
        .where(Silo.organization_id == organization_id, Dataset.withdrawn_at.is_(None))
        .where((Silo.name > after_silo) | ((Silo.name == after_silo) & (Dataset.name > after_name)))
    )
    if silo is not None:
        query = query.where(Silo.name == silo)
    rows = session.execute(query.order_by(Silo.name, Dataset.name).limit(limit))
    return [(found, dataset) for found, dataset in rows]
