"""Making organisations and projects."""

from datetime import datetime

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.db.models import Organization, Project, Role
from backend.errors import ConflictError
from backend.organizations.repository import find_organization, find_project
from backend.users.service import NewUser, create_user

FIRST_NAME = "default"


class NameTakenError(ConflictError):
    """Something of this kind has this name already."""

    code = "name_taken"
    remedy = "choose another name"


def create_organization(
    session: Session, *, name: str, admin: NewUser, actor: Actor, now: datetime
) -> Organization:
    """Make an organisation with its first project and its admin.

    Raises:
        NameTakenError: The organisation's name is taken.
        UserNameTakenError: The admin's name is taken.
    """
    if find_organization(session, name) is not None:
        raise NameTakenError(f"an organisation {name!r} exists")
    organization = Organization(name=name, created_at=now)
    session.add(organization)
    session.flush()
    create_project(session, organization, name=FIRST_NAME, actor=actor, now=now)
    create_user(session, admin, organization_id=organization.id, role=Role.ADMIN, actor=actor, now=now)
    record(
        session,
        actor,
        at=now,
        action="create_organization",
        subject_kind="organization",
        subject_name=name,
        organization_id=organization.id,
    )
    return organization


def create_project(
    session: Session, organization: Organization, *, name: str, actor: Actor, now: datetime
) -> Project:
    """Make a project.

    Raises:
        NameTakenError: The organisation has one of this name.
    """
    if find_project(session, organization.id, name) is not None:
        raise NameTakenError(f"a project {name!r} exists")
    project = Project(organization_id=organization.id, name=name, created_at=now)
    session.add(project)
    record(
        session,
        actor,
        at=now,
        action="create_project",
        subject_kind="project",
        subject_name=name,
        organization_id=organization.id,
    )
    return project
