"""Queries of organisations and projects."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Organization, Project


def find_organization(session: Session, name: str) -> Organization | None:
    """Return the organisation of this name."""
    return session.scalars(select(Organization).where(Organization.name == name)).one_or_none()


def projects_of(session: Session, organization_id: uuid.UUID, *, after: str, limit: int) -> Sequence[Project]:
    """Return an organisation's projects by name, from behind ``after`` on."""
    query = select(Project).where(Project.organization_id == organization_id, Project.name > after)
    return session.scalars(query.order_by(Project.name).limit(limit)).all()


def find_project(session: Session, organization_id: uuid.UUID, name: str) -> Project | None:
    """Return an organisation's project of this name."""
    query = select(Project).where(Project.organization_id == organization_id, Project.name == name)
    return session.scalars(query).one_or_none()
