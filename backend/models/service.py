"""Registering models: a row at once, the files by a thread that takes one model after the other."""

import shutil
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backend.artifacts.service import Blob, attach
from backend.audit import Actor, record
from backend.db.models import Artifact, ArtifactKind, Job, Model, ModelState
from backend.errors import ApiError, NotFoundError
from backend.events import EventKind, emit
from backend.models.errors import ModelInUseError, ModelNameTakenError
from backend.models.repository import importing, is_in_use, lock_with_jobs, unready
from backend.models.sources import check_source, opened, public_name
from backend.models.splitting import register
from backend.organizations.repository import find_project
from backend.server import Server
from splitlearn.errors import TrunklineError
from splitlearn.planning import ModelFolder, ModelManifest

_log = structlog.get_logger("backend.models")
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to be registered."""

    name: str
    source: str
    project: str
    organization_id: uuid.UUID
    actor: Actor


def add(session: Session, server: Server, new: NewModel, *, now: datetime) -> Model:
    """Begin a registration; the importer does the rest.

    Raises:
        SourceRefusedError: The source may not be registered.
        ModelNameTakenError: The project has a model of this name, unless its registration failed.
        NotFoundError: No such project.
    """
    source = check_source(new.source, server.settings.model_folders)
    project = find_project(session, new.organization_id, new.project)
    if project is None:
        raise NotFoundError(f"your organisation has no project {new.project!r}")
    session.refresh(project, with_for_update=True)  # two registrations of one name come one after the other
    model = session.scalars(
        select(Model).where(Model.project_id == project.id, Model.name == new.name)
    ).one_or_none()
    if model is not None and model.state != ModelState.FAILED:
        raise ModelNameTakenError(f"project {project.name!r} has a model {new.name!r}")
    if model is None:
        model = Model(project_id=project.id, name=new.name, manifest={}, digest=_NO_DIGEST)
        session.add(model)
    model.source, model.family, model.created_at = source, "", now
    model.num_layers = model.num_parameters = model.num_bytes = 0
    model.state, model.state_reason = ModelState.IMPORTING.value, ""
    record(
        session,
        new.actor,
        at=now,
        action="add_model",
        subject_kind="model",
        subject_name=new.name,
        details={"source": source},
    )
    session.flush()
    return model


def remove(session: Session, model: Model, actor: Actor, *, now: datetime) -> None:
    """Remove a model; its files go when nothing else needs them.

    Raises:
        ModelInUseError: A job that has not ended needs it.
        UnknownModelError: Somebody else removed it at the same moment.
    """
    lock_with_jobs(session, model)
    if is_in_use(session, model.id):
        raise ModelInUseError(f"a job that has not ended needs the model {model.name!r}")
    names = _blob_names(model)
    for artifact in session.scalars(
        select(Artifact).where(Artifact.project_id == model.project_id, Artifact.name.in_(names))
    ).all():
        artifact.expires_at = now
    session.execute(update(Job).where(Job.model_id == model.id).values(model_id=None))
    record(session, actor, at=now, action="remove_model", subject_kind="model", subject_name=model.name)
    session.delete(model)


def import_pending(server: Server) -> None:
    """Register every model that waits for it. Called by one thread; what fails is written at the model."""
    with server.database.read() as session:
        pending = [(model.id, model.source) for model in importing(session)]
    for model_id, source in pending:
        _import(server, model_id, source)
    if pending:
        _drop_downloads(server)


def _import(server: Server, model_id: uuid.UUID, source: str) -> None:
    settings = server.settings
    try:
        path = opened(source, settings.model_folders, downloads=_downloads(server) / model_id.hex)
        folder = ModelFolder.open(path)
        manifest = register(
            folder, server.store, source=public_name(source), max_bytes=settings.max_blob_bytes
        )
        with server.database.write() as session:
            _keep(session, server, model_id, manifest)
    except (TrunklineError, ApiError) as error:
        _fail(server, model_id, error.message)
    except Exception:  # noqa: BLE001 - a bug must not leave the model importing for ever
        _log.exception("model_import_failed", model=str(model_id))
        _fail(server, model_id, "the registration failed; the server's log says why")


def _downloads(server: Server) -> Path:
    return server.settings.state_dir / "downloads"


def _drop_downloads(server: Server) -> None:
    """Remove what was downloaded for models that are ready, or removed; a failed one may be added again."""
    with server.database.read() as session:
        wanted = {model_id.hex for model_id in unready(session)}
    for folder in _downloads(server).glob("*"):
        if folder.name not in wanted:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(session: Session, server: Server, model_id: uuid.UUID, manifest: ModelManifest) -> None:
    model = session.get(Model, model_id, with_for_update=True)
    if model is None or model.state != ModelState.IMPORTING:  # removed, or registered elsewhere, meanwhile
        return
    now = server.now()
    for kind, files in (
        (ArtifactKind.MODEL_LAYER, manifest.files),
        (ArtifactKind.MODEL_FILE, manifest.companions),
    ):
        for file in files:
            attach(
                session,
                server.store,
                server.settings,
                Blob(bytes.fromhex(file.digest), file.num_bytes),
                project_id=model.project_id,
                kind=kind,
                name=_reference(model, file.name),
                now=now,
            )
    model.family, model.num_layers = manifest.family, manifest.num_layers
    model.num_parameters, model.num_bytes = manifest.num_parameters, manifest.num_bytes
    model.digest = bytes.fromhex(manifest.digest())
    model.manifest = manifest.model_dump(mode="json")
    _settle(session, model, ModelState.READY, "", now=now)


def _fail(server: Server, model_id: uuid.UUID, reason: str) -> None:
    with server.database.write() as session:
        model = session.get(Model, model_id, with_for_update=True)
        if model is not None and model.state == ModelState.IMPORTING:
            _settle(session, model, ModelState.FAILED, reason[:1024], now=server.now())


def _settle(session: Session, model: Model, state: ModelState, reason: str, *, now: datetime) -> None:
    model.state, model.state_reason = state.value, reason
    told = {"model": model.name, "state": state.value, "reason": reason}
    emit(session, model.project_id, EventKind.MODEL_STATE, body=told, now=now)


def _blob_names(model: Model) -> list[str]:
    if not model.manifest:
        return []
    manifest = ModelManifest.model_validate(model.manifest)
    return [_reference(model, file.name) for file in (*manifest.files, *manifest.companions)]


def _reference(model: Model, file: str) -> str:
    return f"{model.id.hex[:16]}/{file}"[:64]
