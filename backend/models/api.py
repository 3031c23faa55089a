"""Models over REST."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status
from pydantic import Field

from backend.auth.callers import CallerDep, ProjectAdmin, Reader
from backend.auth.permissions import Permission
from backend.db.models import Model
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.models import service
from backend.models.errors import (
    ModelInUseError,
    ModelNameTakenError,
    SourceRefusedError,
    UnknownModelError,
)
from backend.models.repository import find_manifest, find_model, models_of
from backend.models.service import NewModel
from backend.organizations.repository import find_project
from backend.organizations.service import FIRST_NAME
from backend.parameters import PathName
from backend.schemas import Answer, Body, Name, Page
from backend.server import ServerDep
from splitlearn.planning import ModelManifest

router = APIRouter(prefix="/models", tags=["models"])
InProject = Annotated[str, Query(max_length=64, description="The project that it belongs to.")]


class AddModelBody(Body):
    """A model to be registered.

    Attributes:
        source: ``hub:OWNER/NAME[@REVISION]``, or ``folder:PATH`` on the server, below a folder that its
            operator allows.
    """

    name: Name
    source: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]+$")
    project: Name = FIRST_NAME


class ModelAnswer(Answer):
    """A registered model; sizes are 0 until it is ready.

    Attributes:
        state: importing, ready or failed.
        digest: Of its manifest; jobs name it as NAME@sha256:DIGEST.
    """

    name: str
    source: str
    state: str
    state_reason: str
    family: str
    num_layers: int
    num_parameters: int
    num_bytes: int
    digest: str
    created_at: datetime


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(*SIGNED_IN, SourceRefusedError, ModelNameTakenError, NotFoundError),
)
def add_model(server: ServerDep, caller: ProjectAdmin, body: AddModelBody) -> ModelAnswer:
    """Begin to register a model; look at its state until it is ready."""
    new = NewModel(body.name, body.source, body.project, caller.organization_id, caller.actor)
    with server.database.write() as session:
        project = find_project(session, caller.organization_id, body.project)
        if project is not None:  # of one that is not there, the registration itself says so
            caller.require(Permission.MANAGE, project.id)
        return _show(service.add(session, server, new, now=server.now()))


@router.get("", responses=documented(*SIGNED_IN))
def list_models(
    server: ServerDep,
    caller: Reader,
    project: InProject = FIRST_NAME,
    after: Annotated[str, Query(max_length=64)] = "",
) -> Page[ModelAnswer]:
    """List a project's models by name."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = models_of(session, caller.organization_id, project, after=after, limit=limit + 1)
        items = [_show(model) for model in rows[:limit]]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


@router.get("/{name}", responses=documented(*SIGNED_IN, UnknownModelError))
def show_model(
    server: ServerDep, caller: Reader, name: PathName, project: InProject = FIRST_NAME
) -> ModelAnswer:
    """Show one model."""
    with server.database.read() as session:
        return _show(find_model(session, caller.organization_id, project, name))


@router.delete(
    "/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, UnknownModelError, ModelInUseError),
)
def remove_model(
    server: ServerDep, caller: ProjectAdmin, name: PathName, project: InProject = FIRST_NAME
) -> None:
    """Remove a model that no job needs any more."""
    with server.database.write() as session:
        model = find_model(session, caller.organization_id, project, name)
        caller.require(Permission.MANAGE, model.project_id)
        service.remove(session, model, caller.actor, now=server.now())


@router.get(
    "/manifests/{digest}",
    response_class=Response,
    responses={
        **documented(*SIGNED_IN, UnknownModelError),
        200: {"content": {"application/json": {}}, "description": "Its canonical bytes."},
    },
)
def read_manifest(
    server: ServerDep, caller: CallerDep, digest: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
) -> Response:
    """Read a model's manifest: which files it has, and which tensors are in each."""
    with server.database.read() as session:
        model = find_manifest(session, caller.organization_id, bytes.fromhex(digest))
        manifest = ModelManifest.model_validate(model.manifest)
    return Response(manifest.canonical_bytes(), media_type="application/json")


def _show(model: Model) -> ModelAnswer:
    return ModelAnswer(
        name=model.name,
        source=model.source,
        state=model.state,
        state_reason=model.state_reason,
        family=model.family,
        num_layers=model.num_layers,
        num_parameters=model.num_parameters,
        num_bytes=model.num_bytes,
        digest=model.digest.hex(),
        created_at=model.created_at,
    )
