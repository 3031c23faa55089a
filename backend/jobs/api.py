"""Jobs as people see them."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, status
from sqlalchemy.orm import Session

from backend.audit import Actor
from backend.auth.callers import ProjectResearcher, Reader, UserCaller
from backend.auth.permissions import Permission
from backend.db.models import Job, JobState, Project
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.jobs import wishes
from backend.jobs.errors import (
    InvalidCutError,
    InvalidSpecError,
    JobOverError,
    NoSpecSignerError,
    SpecRefusedError,
    UnknownJobError,
    UnservedSpecError,
    WrongStateError,
)
from backend.jobs.planning import plan
from backend.jobs.repository import artifacts_of, find_job, jobs_of, rounds_of
from backend.jobs.schemas import (
    ArtifactAnswer,
    CloneBody,
    JobAnswer,
    JobDetailAnswer,
    PlanAnswer,
    RetryBody,
    RoundAnswer,
    SubmitBody,
)
from backend.jobs.submission import Submission, as_asked, check, merge_patch, submit
from backend.jobs.views import show, show_detail
from backend.organizations.repository import find_project
from backend.paging import cursor_text, parse_cursor
from backend.parameters import AFTER_MEANS, After
from backend.schemas import Name, Page
from backend.server import Server, ServerDep

router = APIRouter(prefix="/jobs", tags=["jobs"])
_PLAN = (
    *SIGNED_IN,
    NotFoundError,
    InvalidSpecError,
    UnservedSpecError,
    InvalidCutError,
    SpecRefusedError,
)
_SUBMIT = (*_PLAN, NoSpecSignerError)
_ONE = (*SIGNED_IN, UnknownJobError)


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(*_SUBMIT))
def submit_job(server: ServerDep, caller: ProjectResearcher, body: SubmitBody) -> JobDetailAnswer:
    """Submit a job; its silos are asked next."""
    asked = Submission(body.spec, body.project, caller.organization_id, caller.actor)
    return _submit(server, caller, asked)


@router.post("/plan", responses=documented(*_PLAN))
def plan_job(server: ServerDep, caller: Reader, body: SubmitBody) -> PlanAnswer:
    """Tell what a job would need, without submitting it."""
    with server.database.read() as session:
        project = find_project(session, caller.organization_id, body.project)
        if project is None:
            raise NotFoundError(f"your organisation has no project {body.project!r}")
        checked = check(session, body.spec, project, settings=server.settings, now=server.now())
        return plan(session, server.settings, checked, now=server.now())


@router.get("", responses=documented(*SIGNED_IN))
def list_jobs(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    caller: Reader,
    state: JobState | None = None,
    name: Annotated[Name | None, Query()] = None,
    silo: Annotated[Name | None, Query()] = None,
    after: After = None,
) -> Page[JobAnswer]:
    """List your organisation's jobs, newest first."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = jobs_of(
            session,
            caller.organization_id,
            state=state,
            name=name,
            silo=silo,
            before=parse_cursor(after),
            limit=limit + 1,
        )
        items = [show(job) for job in rows[:limit]]
    return Page(
        items=items, next=cursor_text(items[-1].created_at, items[-1].id) if len(rows) > limit else None
    )


@router.get("/{job_id}", responses=documented(*_ONE))
def show_job(server: ServerDep, caller: Reader, job_id: uuid.UUID) -> JobDetailAnswer:
    """Show one job: its state and why, its silos, who hosts the trunk."""
    with server.database.read() as session:
        return show_detail(session, find_job(session, job_id, caller.organization_id))


@router.get("/{job_id}/rounds", responses=documented(*_ONE))
def list_rounds(
    server: ServerDep,
    caller: Reader,
    job_id: uuid.UUID,
    after: Annotated[str, Query(pattern=r"^\d{1,9}\.\d{1,5}$", description=AFTER_MEANS)] = "0.0",
) -> Page[RoundAnswer]:
    """List a job's rounds by number, those too that it went back before."""
    limit = server.settings.max_page
    number, replica = map(int, after.split("."))
    with server.database.read() as session:
        find_job(session, job_id, caller.organization_id)
        rows = rounds_of(session, job_id, after=(number, replica), limit=limit + 1)
    items = [RoundAnswer.model_validate(row) for row in rows[:limit]]
    last = f"{items[-1].number}.{items[-1].replica}" if len(rows) > limit else None
    return Page(items=items, next=last)


@router.get("/{job_id}/artifacts", responses=documented(*_ONE))
def list_artifacts(
    server: ServerDep, caller: Reader, job_id: uuid.UUID, after: After = None
) -> Page[ArtifactAnswer]:
    """List what a job has left in the store, oldest first."""
    limit = server.settings.max_page
    with server.database.read() as session:
        find_job(session, job_id, caller.organization_id)
        rows = artifacts_of(session, job_id, after=parse_cursor(after), limit=limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        items=[
            ArtifactAnswer(
                name=row.name,
                kind=row.kind.value,
                digest=row.digest.hex(),
                num_bytes=row.num_bytes,
                created_at=row.created_at,
                expires_at=row.expires_at,
            )
            for row in rows[:limit]
        ],
        next=None if last is None else cursor_text(last.created_at, last.id),
    )


@router.post("/{job_id}/cancel", responses=documented(*_ONE, JobOverError))
def cancel_job(server: ServerDep, caller: ProjectResearcher, job_id: uuid.UUID) -> JobDetailAnswer:
    """End a job; its parties stop within seconds."""
    return _wish(server, caller, job_id, wishes.cancel)


@router.post("/{job_id}/pause", responses=documented(*_ONE, JobOverError, WrongStateError))
def pause_job(server: ServerDep, caller: ProjectResearcher, job_id: uuid.UUID) -> JobDetailAnswer:
    """Pause a job at the end of its round."""
    return _wish(server, caller, job_id, wishes.pause)


@router.post("/{job_id}/resume", responses=documented(*_ONE, JobOverError, WrongStateError))
def resume_job(server: ServerDep, caller: ProjectResearcher, job_id: uuid.UUID) -> JobDetailAnswer:
    """Let a paused job go on."""
    return _wish(server, caller, job_id, wishes.resume)


@router.post("/{job_id}/retry", responses=documented(*_ONE, WrongStateError))
def retry_job(
    server: ServerDep, caller: ProjectResearcher, job_id: uuid.UUID, body: RetryBody
) -> JobDetailAnswer:
    """Let a failed or cancelled job go on from a round."""

    def wish(session: Session, job: Job, actor: Actor, *, now: datetime) -> None:
        wishes.retry(session, job, actor, round_number=body.round, now=now)

    return _wish(server, caller, job_id, wish)


@router.post(
    "/{job_id}/clone",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*_SUBMIT, UnknownJobError),
)
def clone_job(
    server: ServerDep, caller: ProjectResearcher, job_id: uuid.UUID, body: CloneBody
) -> JobDetailAnswer:
    """Submit the same job again, with changes."""
    with server.database.read() as session:
        job = find_job(session, job_id, caller.organization_id)
        fields = merge_patch(as_asked(json.loads(job.spec_bytes), job.schedule_asked), body.changes)
        project = session.get_one(Project, job.project_id).name
    asked = Submission(fields, project, caller.organization_id, caller.actor, parent_id=job_id)
    return _submit(server, caller, asked)


def _submit(server: Server, caller: UserCaller, asked: Submission) -> JobDetailAnswer:
    with server.database.write() as session:
        project = find_project(session, caller.organization_id, asked.project)
        if project is not None:  # of one that is not there, the submission itself says so
            caller.require(Permission.RUN_JOBS, project.id)
        job, notes = submit(session, asked, settings=server.settings, now=server.now())
        return show_detail(session, job, notes=notes)


def _wish(
    server: Server, caller: UserCaller, job_id: uuid.UUID, wish: Callable[..., None]
) -> JobDetailAnswer:
    with server.database.write() as session:
        job = find_job(session, job_id, caller.organization_id, lock=True)
        caller.require(Permission.RUN_JOBS, job.project_id)
        wish(session, job, caller.actor, now=server.now())
        return show_detail(session, job)
