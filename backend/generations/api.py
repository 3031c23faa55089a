"""Sessions of generation as people see them: which there were of a job, and the end of one."""

import uuid

from fastapi import APIRouter, status

from backend.auth.callers import ProjectAdmin, Reader
from backend.auth.permissions import Permission
from backend.db.models import Generation
from backend.errors import SIGNED_IN, documented
from backend.generations import service
from backend.generations.errors import UnknownGenerationError
from backend.generations.repository import generations_of
from backend.generations.schemas import GenerationAnswer
from backend.jobs.errors import UnknownJobError
from backend.jobs.repository import find_job
from backend.paging import cursor_text, parse_cursor
from backend.parameters import After
from backend.schemas import Page
from backend.server import ServerDep

router = APIRouter(prefix="/jobs/{job_id}/generations", tags=["generations"])


@router.get("", responses=documented(*SIGNED_IN, UnknownJobError))
def list_generations(
    server: ServerDep, caller: Reader, job_id: uuid.UUID, after: After = None
) -> Page[GenerationAnswer]:
    """List in which sessions silos generated with a job's result, newest first."""
    limit = server.settings.max_page
    with server.database.read() as session:
        find_job(session, job_id, caller.organization_id)
        rows = generations_of(session, job_id, before=parse_cursor(after), limit=limit + 1)
    items = [_show(row, silo, worker) for row, silo, worker in rows[:limit]]
    return Page(
        items=items, next=cursor_text(items[-1].created_at, items[-1].id) if len(rows) > limit else None
    )


@router.post(
    "/{generation_id}/end",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, UnknownGenerationError),
)
def end_generation(
    server: ServerDep, caller: ProjectAdmin, job_id: uuid.UUID, generation_id: uuid.UUID
) -> None:
    """End a session; its parties stop within seconds. One that has ended stays as it is."""
    with server.database.write() as session:
        job = find_job(session, job_id, caller.organization_id)
        caller.require(Permission.MANAGE, job.project_id)
        service.end_by_admin(session, job, generation_id, caller.actor, now=server.now())


def _show(row: Generation, silo: str, worker: str | None) -> GenerationAnswer:
    return GenerationAnswer(
        id=row.id,
        silo=silo,
        state=row.state,
        reason_code=row.reason_code,
        reason=f"{row.reason_who} {row.reason_what}; {row.reason_next}",
        worker=worker,
        epoch=row.epoch,
        num_tokens=row.num_tokens,
        created_at=row.created_at,
        heard_at=row.heard_at,
        ended_at=row.ended_at,
    )
