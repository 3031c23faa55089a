"""The caller's organisation and its projects."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Admin, Reader
from backend.db.models import Organization
from backend.errors import SIGNED_IN, documented
from backend.organizations import service
from backend.organizations.repository import projects_of
from backend.organizations.schemas import CreateProjectBody, OrganizationAnswer, ProjectAnswer
from backend.schemas import Page
from backend.server import ServerDep

router = APIRouter(tags=["organizations"])


@router.get("/organization", responses=documented(*SIGNED_IN))
def show_organization(server: ServerDep, caller: Reader) -> OrganizationAnswer:
    """Show your organisation."""
    with server.database.read() as session:
        return OrganizationAnswer.model_validate(session.get_one(Organization, caller.organization_id))


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
