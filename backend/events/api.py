"""The event streams."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from backend.auth.callers import Reader, UserCaller
from backend.db.models import Event
from backend.errors import SIGNED_IN, InvalidRequestError, NotFoundError, documented
from backend.events.repository import events_after
from backend.events.stream import PAGE, stream
from backend.jobs.repository import find_job
from backend.organizations.repository import find_project
from backend.organizations.service import FIRST_NAME
from backend.schemas import Name
from backend.server import Server, ServerDep

router = APIRouter(tags=["events"])
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)]
After = Annotated[int | None, Query(ge=0, description="Only events after this number.")]
Follow = Annotated[bool, Query(description="False: end with the newest event.")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events, one by one, for ever."}
}


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={**documented(*SIGNED_IN, NotFoundError), **_STREAM},
)
def watch_project(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    caller: Reader,
    last_event_id: LastEventId = None,
    after: After = None,
    follow: Follow = True,  # noqa: FBT002 - a query parameter
    project: Annotated[Name, Query()] = FIRST_NAME,
) -> StreamingResponse:
    """Follow a project's events."""
    with server.database.read() as session:
        found = find_project(session, caller.organization_id, project)
        if found is None:
            raise NotFoundError(f"your organisation has no project {project!r}")
    return _stream(server, found.id, None, _begin(last_event_id, after), follow=follow)


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={**documented(*SIGNED_IN, NotFoundError), **_STREAM},
)
def watch_job(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    caller: Reader,
    job_id: uuid.UUID,
    last_event_id: LastEventId = None,
    after: After = None,
    follow: Follow = True,  # noqa: FBT002 - a query parameter
) -> StreamingResponse:
    """Follow one job's events."""
    project_id = _project_of(server, caller, job_id)
    return _stream(server, project_id, job_id, _begin(last_event_id, after), follow=follow)


def _project_of(server: Server, caller: UserCaller, job_id: uuid.UUID) -> uuid.UUID:
    with server.database.read() as session:
        return find_job(session, job_id, caller.organization_id).project_id


def _begin(last_event_id: str | None, after: int | None) -> int:
    if last_event_id is None:
        return after or 0
    if not last_event_id.isdecimal():
        raise InvalidRequestError(f"Last-Event-ID: {last_event_id!r} is no number of an event")
    return int(last_event_id)


def _stream(
    server: Server, project_id: uuid.UUID, job_id: uuid.UUID | None, after: int, *, follow: bool
) -> StreamingResponse:
    def read(number: int) -> Sequence[Event]:
        with server.database.read() as session:
            return events_after(session, project_id, after=number, job_id=job_id, limit=PAGE)

    return StreamingResponse(
        stream(read, server.bus, after=after, follow=follow),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
