"""Roles in single projects: they stand in for the organisation's there."""

import uuid
from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Membership, Project, ProjectRole, Role
from backend.errors import ConflictError, NotFoundError
from backend.organizations.repository import find_project
from backend.users.service import member


class AdminEverywhereError(ConflictError):
    """An admin of the organisation is one in each of its projects."""

    code = "admin_everywhere"
    remedy = "change the user's role in the organisation first"


def project_of(session: Session, organization_id: uuid.UUID, name: str) -> Project:
    """Return the organisation's project of this name.

    Raises:
        NotFoundError: It has none.
    """
    project = find_project(session, organization_id, name)
    if project is None:
        raise NotFoundError(f"your organisation has no project {name!r}")
    return project


def set_role(
    session: Session, project: Project, name: str, role: Role, *, actor: Actor, now: datetime
) -> ProjectRole:
    """Give a user a role in a project, or another one.

    Raises:
        NotFoundError: The organisation has no such user.
        AdminEverywhereError: The user is an admin of the organisation.
    """
    _, membership = member(session, project.organization_id, name)
    if membership.role is Role.ADMIN:
        raise AdminEverywhereError(f"{name!r} is an admin of the organisation")
    row = session.get(ProjectRole, (membership.id, project.id), with_for_update=True)
    if row is None:
        row = ProjectRole(membership_id=membership.id, project_id=project.id, created_at=now)
        session.add(row)
    row.role = role
    _record(session, project, name, actor, "set_project_role", now=now, role=role.value)
    return row


def remove_role(session: Session, project: Project, name: str, *, actor: Actor, now: datetime) -> None:
    """Let the organisation's role count in a project again.

    Raises:
        NotFoundError: The user has no role of its own there.
    """
    _, membership = member(session, project.organization_id, name)
    row = _find(session, membership, project)
    session.delete(row)
    _record(session, project, name, actor, "remove_project_role", now=now, role=row.role.value)


def _find(session: Session, membership: Membership, project: Project) -> ProjectRole:
    row = session.get(ProjectRole, (membership.id, project.id), with_for_update=True)
    if row is None:
        raise NotFoundError("the user has no role of its own in this project; the organisation's counts")
    return row


def _record(
    session: Session, project: Project, name: str, actor: Actor, action: str, *, now: datetime, role: str
) -> None:
    record(
        session,
        actor,
        at=now,
        action=action,
        subject_kind="user",
        subject_name=name,
        details={"project": project.name, "role": role},
    )
