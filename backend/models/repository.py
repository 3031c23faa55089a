"""Finding registered models."""

import uuid
from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from backend.db.models import Job, JobState, Model, ModelState, Project
from backend.jobs.state import ENDED
from backend.models.errors import UnknownModelError

_GOES_ON = frozenset(JobState) - ENDED
"""Named, not excluded: an index finds these few."""


def models_of(
    session: Session, organization_id: uuid.UUID, project: str, *, after: str, limit: int
) -> Sequence[Model]:
    """Return a project's models by name, from behind ``after`` on."""
    query = _in_project(organization_id, project).where(Model.name > after)
    return session.scalars(query.order_by(Model.name).limit(limit)).all()


def find_model(session: Session, organization_id: uuid.UUID, project: str, name: str) -> Model:
    """Return a project's model by its name.

    Raises:
        UnknownModelError: The project has none of this name, or the organisation no such project.
    """
    query = _in_project(organization_id, project).where(Model.name == name)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise UnknownModelError(f"project {project!r} has no model {name!r}")
    return found


def find_manifest(session: Session, organization_id: uuid.UUID, digest: bytes) -> Model:
    """Return the model whose manifest has this digest.

    Raises:
        UnknownModelError: The organisation has none.
    """
    query = (
        select(Model)
        .join(Project)
        .where(
            Model.digest == digest,
            Model.state == ModelState.READY.value,
            Project.organization_id == organization_id,
        )
    )
    found = session.scalars(query.limit(1)).one_or_none()
    if found is None:
        raise UnknownModelError(f"your organisation has no model with the manifest {digest.hex()}")
    return found


def importing(session: Session) -> Sequence[Model]:
    """Return the models whose registration was begun."""
    return session.scalars(select(Model).where(Model.state == ModelState.IMPORTING.value)).all()


def unready(session: Session) -> Sequence[uuid.UUID]:
    """Return the ids of the models whose registration was begun or has failed."""
    return session.scalars(select(Model.id).where(Model.state != ModelState.READY.value)).all()


def lock_with_jobs(session: Session, model: Model) -> None:
    """Lock a model's jobs, then the model: in the order in which a job that is retried asks for them.

    Raises:
        UnknownModelError: It was removed meanwhile.
    """
    session.execute(select(Job.id).where(Job.model_id == model.id).order_by(Job.id).with_for_update())
    if session.scalar(select(Model.id).where(Model.id == model.id).with_for_update()) is None:
        raise UnknownModelError(f"the model {model.name!r} was removed meanwhile")
    session.refresh(model)


def is_in_use(session: Session, model_id: uuid.UUID) -> bool:
    """Whether a job that has not ended needs a model."""
    query = select(Job.id).where(Job.model_id == model_id, Job.state.in_(_GOES_ON)).limit(1)
    return session.scalar(query) is not None


def _in_project(organization_id: uuid.UUID, project: str) -> Select[Model]:
    query = select(Model).join(Project)
    return query.where(Project.organization_id == organization_id, Project.name == project)
