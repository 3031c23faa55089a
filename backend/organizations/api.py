"""The caller's organisation and its projects."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Admin, Reader
from backend.auth.errors import FactorMissingError
from backend.auth.second_factor import demand
from backend.db.models import Organization
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.organizations import members, service
from backend.organizations.repository import project_members, projects_of
from backend.organizations.schemas import (
    ChangeOrganizationBody,
    CreateProjectBody,
    OrganizationAnswer,
    ProjectAnswer,
    ProjectMemberAnswer,
    ProjectRoleBody,
)
from backend.parameters import PathName
from backend.schemas import Page
from backend.server import ServerDep

router = APIRouter(tags=["organizations"])


@router.get("/organization", responses=documented(*SIGNED_IN))
def show_organization(server: ServerDep, caller: Reader) -> OrganizationAnswer:
    """Show your organisation."""
    with server.database.read() as session:
        return OrganizationAnswer.model_validate(session.get_one(Organization, caller.organization_id))


@router.patch("/organization", responses=documented(*SIGNED_IN, FactorMissingError))
def change_organization(server: ServerDep, caller: Admin, body: ChangeOrganizationBody) -> OrganizationAnswer:
    """Say of whom a second factor is demanded; who has none can do nothing before getting one, at once."""
    with server.database.write() as session:
        row = demand(session, caller, body.second_factor, now=server.now())
        return OrganizationAnswer.model_validate(row)


@router.get("/projects", responses=documented(*SIGNED_IN))
def list_projects(
    server: ServerDep, caller: Reader, after: Annotated[str, Query(max_length=64)] = ""
) -> Page[ProjectAnswer]:
    """List your organisation's projects by name."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = projects_of(session, caller.organization_id, after=after, limit=limit + 1)
        items = [ProjectAnswer.model_validate(row) for row in rows[:limit]]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


@router.post(
    "/projects",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*SIGNED_IN, service.NameTakenError),
)
def create_project(server: ServerDep, caller: Admin, body: CreateProjectBody) -> ProjectAnswer:
    """Make a project."""
    with server.database.write() as session:
        organization = session.get_one(Organization, caller.organization_id)
        row = service.create_project(
            session, organization, name=body.name, actor=caller.actor, now=server.now()
        )
        return ProjectAnswer.model_validate(row)


@router.get("/projects/{project}/members", responses=documented(*SIGNED_IN, NotFoundError))
def list_project_members(
    server: ServerDep, caller: Reader, project: PathName, after: Annotated[str, Query(max_length=64)] = ""
) -> Page[ProjectMemberAnswer]:
    """List who has a role of its own in a project; for all others the organisation's counts."""
    limit = server.settings.max_page
    with server.database.read() as session:
        found = members.project_of(session, caller.organization_id, project)
        rows = project_members(session, found.id, after=after, limit=limit + 1)
        items = [
            ProjectMemberAnswer(name=user.name, role=row.role, created_at=row.created_at)
            for user, row in rows[:limit]
        ]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


@router.put(
    "/projects/{project}/members/{name}",
    responses=documented(*SIGNED_IN, NotFoundError, members.AdminEverywhereError),
)
def set_project_role(
    server: ServerDep, caller: Admin, project: PathName, name: PathName, body: ProjectRoleBody
) -> ProjectMemberAnswer:
    """Give a user a role in one project, instead of the organisation's; it counts at once."""
    with server.database.write() as session:
        found = members.project_of(session, caller.organization_id, project)
        row = members.set_role(session, found, name, body.role, actor=caller.actor, now=server.now())
        return ProjectMemberAnswer(name=name, role=row.role, created_at=row.created_at)


@router.delete(
    "/projects/{project}/members/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, NotFoundError),
)
def remove_project_role(server: ServerDep, caller: Admin, project: PathName, name: PathName) -> None:
    """Let the organisation's role of a user count in a project again."""
    with server.database.write() as session:
        found = members.project_of(session, caller.organization_id, project)
        members.remove_role(session, found, name, actor=caller.actor, now=server.now())
