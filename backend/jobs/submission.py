"""Submitting a job: everything is checked before anything is signed."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.datasets.service import announced
from backend.db.base import MAX_TEXT, storable
from backend.db.models import (
    Approval,
    Desired,
    Job,
    JobSilo,
    JobState,
    Model,
    ModelState,
    PartyStatus,
    Project,
    Silo,
)
from backend.errors import NotFoundError
from backend.events import EventKind, emit
from backend.federation.service import federation_of
from backend.federation.signer import spec_signer
from backend.jobs.choosing import AUTO, choose
from backend.jobs.errors import (
    InvalidCutError,
    InvalidSpecError,
    NoSpecSignerError,
    SpecRefusedError,
    UnservedSpecError,
)
from backend.jobs.moves import Why, move
from backend.jobs.starting import Start, find_start, keep_start, refuse_unfit
from backend.log import current_request_id
from backend.organizations.repository import find_project
from backend.settings import Settings
from splitlearn.errors import IdentityError, ModelError, SpecError, UnservedError
from splitlearn.identity import Identity, sign_spec
from splitlearn.planning import DEFAULT_SCHEDULE, ModelManifest, unknown_targets, with_schedule
from splitlearn.spec import JobSpec, LoraAdapter, SiloSpec
from splitlearn.spec_defaults import Filled, fill_open_fields

ANY_TASK = "any"
_SEPARATOR = "@sha256:"
_log = structlog.get_logger("backend.jobs")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it is asked for.

    Attributes:
        fields: The specification, not yet parsed.
        parent_id: The job that it is a clone of.
    """

    fields: Mapping[str, Any]
    project: str
    organization_id: uuid.UUID
    actor: Actor
    parent_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A specification that could run: its parts are there.

    Attributes:
        spec: With the schedule that it is run with.
        asked_schedule: What was asked for, where that left it open; None elsewhere.
        schedule_reason: Why it became what it is, where it was chosen.
        notes: What whoever asks for it should know of it, a sentence each.
        start: The earlier job whose result it begins at; None for the model itself.
    """

    spec: JobSpec
    model: Model
    silos: tuple[Silo, ...]
    asked_schedule: str | None = None
    schedule_reason: str | None = None
    notes: tuple[str, ...] = ()
    start: Start | None = None


def submit(
    session: Session, asked: Submission, *, settings: Settings, now: datetime
) -> tuple[Job, tuple[str, ...]]:
    """Check, sign and keep a job; silos are asked next. Returned with what its author should know of it.

    Raises:
        InvalidSpecError, UnservedSpecError, InvalidCutError: The specification is wrong by itself.
        SpecRefusedError: A model, silo or data set is not there, or does not fit.
        NoSpecSignerError: Nobody vouches for this server's signature yet.
        NotFoundError: No such project.
    """
    project = find_project(session, asked.organization_id, asked.project)
    if project is None:
        raise NotFoundError(f"your organisation has no project {asked.project!r}")
    checked = check(session, asked.fields, project, settings=settings, now=now, lock=True)
    job = _add(session, checked, project, asked, now=now)
    if checked.start is not None:
        keep_start(session, settings, job, checked.start, now=now)
    for position, (silo, part) in enumerate(zip(checked.silos, checked.spec.silos, strict=True)):
        session.add(
            JobSilo(
                job_id=job.id,
                silo_id=silo.id,
                position=position,
                dataset=part.dataset,
                approval=Approval.WAITING,
                approval_reason="",
            )
        )
    names = ", ".join(silo.name for silo in checked.silos)
    why = Why("asked", "silos", f"{names} were asked", "agents", "each agent checks the job against its data")
    move(session, job, JobState.AWAITING_APPROVAL, why, now=now)
    return job, checked.notes


def check(
    session: Session,
    fields: Mapping[str, Any],
    project: Project,
    *,
    settings: Settings,
    now: datetime,
    lock: bool = False,
) -> Checked:
    """Parse a specification, find what it names, and choose what it leaves open; see :func:`submit`.

    Args:
        session: The transaction.
        fields: The specification, not yet parsed.
        project: Where the model is looked for.
        settings: Which workers count as online.
        now: The server's time.
        lock: The model is not removed, and no silo revoked, before the transaction ends.
    """
    start = find_start(session, fields, project, now=now, lock=lock)
    filled = _parse(fields, start)
    spec, notes = filled.spec, filled.notes
    model = _model(session, spec, project, lock=lock)
    manifest = ModelManifest.model_validate(model.manifest)
    cut = spec.silos[0].cut
    try:
        manifest.folder().cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers)
    except ModelError as error:
        raise InvalidCutError(error.message) from error
    _refuse_unfit(spec, manifest)
    silos = tuple(_silo(session, part, spec, project.organization_id, lock=lock) for part in spec.silos)
    named = spec.model_copy(update={"model": f"{model.name}{_SEPARATOR}{manifest.digest()}"})
    if start is not None:
        refuse_unfit(named, start)
    if named.schedule != AUTO:
        return Checked(named, model, silos, notes=notes, start=start)
    choice = choose(session, settings, named, manifest, silos, now=now)
    return Checked(
        choice.spec,
        model,
        silos,
        asked_schedule=AUTO,
        schedule_reason=choice.reason,
        notes=notes,
        start=start,
    )


def _refuse_unfit(spec: JobSpec, manifest: ModelManifest) -> None:
    """Refuse rows that the model has no positions for, and adapters of modules that it has not."""
    positions = manifest.folder().positions
    if positions is not None and spec.max_tokens > positions:
        raise InvalidSpecError(
            f"max_tokens: {spec.max_tokens} is more than the {positions} positions of the model; give "
            f"{positions} or less"
        )
    if not isinstance(spec.adapter, LoraAdapter):
        return
    unknown, known = unknown_targets(manifest.folder(), spec.adapter)
    if unknown:
        raise InvalidSpecError(
            f"adapter.targets: {unknown[0]!r} is no linear module of the model's layers; choose among "
            f"{', '.join(known)}"
        )


def _parse(fields: Mapping[str, Any], start: Start | None) -> Filled:
    try:
        filled = fill_open_fields(
            fields,
            on_platform=True,
            parse=lambda written: JobSpec.parse(json.dumps(written)),
            begins_with=None if start is None else start.begins_with(fields),
        )
        spec = filled.spec
        (with_schedule(spec, DEFAULT_SCHEDULE) or spec if spec.schedule == AUTO else spec).refuse_unserved()
    except UnservedError as error:
        raise UnservedSpecError(error.message) from error
    except SpecError as error:
        raise InvalidSpecError(error.message) from error
    return filled


def _model(session: Session, spec: JobSpec, project: Project, *, lock: bool) -> Model:
    name, _, digest = spec.model.partition(_SEPARATOR)
    query = select(Model).where(Model.project_id == project.id, Model.name == name)
    # The weakest lock that waits for a removal which is under way.
    model = session.scalars(query.with_for_update(read=True, key_share=True) if lock else query).one_or_none()
    if model is None:
        raise SpecRefusedError(f"model: no model {name!r} is registered in project {project.name!r}")
    if model.state != ModelState.READY:
        raise SpecRefusedError(f"model: {name!r} is {model.state}: {model.state_reason or 'wait for it'}")
    if digest and digest != model.digest.hex():
        raise SpecRefusedError(f"model: {name!r} has digest {model.digest.hex()}, not {digest}")
    return model


def _silo(session: Session, part: SiloSpec, spec: JobSpec, organization_id: uuid.UUID, *, lock: bool) -> Silo:
    query = select(Silo).where(Silo.name == part.name, Silo.organization_id == organization_id)
    # Who revokes a silo locks it, then the federation; in the other order two could wait for each other.
    silo = session.scalars(query.with_for_update(read=True, key_share=True) if lock else query).one_or_none()
    if silo is None or silo.status is not PartyStatus.ENROLLED:
        raise SpecRefusedError(f"silos: your organisation has no enrolled silo {part.name!r}")
    found = announced(session, silo.id, part.dataset)
    if found is None:
        raise SpecRefusedError(f"silos: {part.name!r} has announced no data set {part.dataset!r}")
    if found.task not in (ANY_TASK, spec.task.kind):
        raise SpecRefusedError(
            f"silos: data set {part.dataset!r} of {part.name!r} is for task {found.task!r}, "
            f"the job's is {spec.task.kind!r}"
        )
    return silo


def _add(session: Session, checked: Checked, project: Project, asked: Submission, *, now: datetime) -> Job:
    signer = _signer(session, now=now)
    spec_bytes = checked.spec.canonical_bytes()
    job = Job(
        id=uuid.uuid4(),
        project_id=project.id,
        name=checked.spec.name,
        model_id=checked.model.id,
        parent_id=asked.parent_id,
        spec_bytes=spec_bytes,
        spec_digest=checked.spec.digest(),
        spec_signature=sign_spec(spec_bytes, signer=signer).to_bytes(),
        schedule_asked=checked.asked_schedule,
        schedule_reason=None
        if checked.schedule_reason is None
        else storable(checked.schedule_reason, MAX_TEXT),
        state=JobState.SUBMITTED,
        desired=Desired.RUN,
        reason_code="submitted",
        reason_who=asked.actor.name,
        reason_what="was submitted",
        reason_where="API",
        reason_next="silos are asked",
        submitted_by=asked.actor.name,
        correlation_id=current_request_id(),
        created_at=now,
        updated_at=now,
        state_since=now,
    )
    session.add(job)
    session.flush()
    details: dict[str, Any] = {"name": job.name, "silos": [silo.name for silo in checked.spec.silos]}
    if checked.schedule_reason is not None:
        details |= {"schedule": checked.spec.schedule, "schedule_reason": job.schedule_reason}
    if checked.notes:
        details["notes"] = [storable(note, MAX_TEXT) for note in checked.notes]
    _log.info("job_submitted", job=str(job.id), name=job.name, correlation_id=job.correlation_id)
    emit(session, project.id, EventKind.JOB_SUBMITTED, body=details, now=now, job_id=job.id)
    record(
        session,
        asked.actor,
        at=now,
        action="submit_job",
        subject_kind="job",
        subject_name=str(job.id),
        details=details,
    )
    return job


def _signer(session: Session, *, now: datetime) -> Identity:
    try:
        # Held: a key that is replaced before this is committed would leave a job that no silo believes.
        signer = spec_signer(federation_of(session, hold=True), now=now)
    except IdentityError as error:
        raise NoSpecSignerError(
            f"this server may not sign specifications any more: {error.message}"
        ) from error
    if signer is None:
        raise NoSpecSignerError("the federation root has not signed this server's key for specifications yet")
    return signer


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def model_name(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification's fields with the model by its name alone, for another job on it."""
    name = str(fields["model"]).partition(_SEPARATOR)[0]
    return {**fields, "model": name}


def as_asked(fields: Mapping[str, Any], schedule_asked: str | None) -> dict[str, Any]:
    """Return a specification's fields for another job on it: the model by its name alone, and what was asked.

    Args:
        fields: Of the signed specification.
        schedule_asked: Where its schedule was chosen, what was asked for; it is chosen anew.
    """
    named = model_name(fields)
    if schedule_asked is None:
        return named
    chosen = {name: value for name, value in named.items() if name != "replicas"}
    return {**chosen, "schedule": schedule_asked}
