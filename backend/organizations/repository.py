"""Queries of organisations and projects."""

import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Membership, Organization, Project, ProjectRole, Role, User


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


def names_of_projects(session: Session, roles: Mapping[uuid.UUID, Role]) -> dict[str, Role]:
    """Return roles by the projects' names instead of their ids."""
    query = select(Project.name, Project.id).where(Project.id.in_(roles)).order_by(Project.name)
    return {name: roles[project_id] for name, project_id in session.execute(query)}


def project_members(
    session: Session, project_id: uuid.UUID, *, after: str, limit: int
) -> Sequence[tuple[User, ProjectRole]]:
    """Return who has a role of its own in a project, by name, from behind ``after`` on."""
    query = (
        select(User, ProjectRole)
        .join(Membership, Membership.user_id == User.id)
        .join(ProjectRole, ProjectRole.membership_id == Membership.id)
        .where(ProjectRole.project_id == project_id, User.name > after)
        .order_by(User.name)
        .limit(limit)
    )
    return [(user, row) for user, row in session.execute(query)]
