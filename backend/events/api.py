"""The event streams."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response, status
from fastapi.responses import StreamingResponse

from backend.auth.callers import Reader, UserCaller, is_admitted
from backend.db.models import Event
from backend.errors import SIGNED_IN, InvalidRequestError, NotFoundError, documented
from backend.events.repository import events_after
from backend.events.stream import PAGE, IsOver, never, stream
from backend.jobs.repository import find_job
from backend.jobs.state import ENDED
from backend.organizations.repository import find_project
from backend.organizations.service import FIRST_NAME
from backend.schemas import MAX_NUMBER, Name
from backend.server import Server, ServerDep

router = APIRouter(tags=["events"])
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)]
After = Annotated[int | None, Query(ge=0, lt=MAX_NUMBER, description="Only events after this number.")]
Follow = Annotated[bool, Query(description="False: end with the newest event.")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events, one by one."}
}
_NOTHING_MORE: dict[int | str, dict[str, Any]] = {
    204: {"description": "The job is over and has no later event: a browser stops asking."}
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
    """Follow a project's events, for ever."""
    with server.database.read() as session:
        found = find_project(session, caller.organization_id, project)
        if found is None:
            raise NotFoundError(f"your organisation has no project {project!r}")
    return _stream(server, caller, found.id, None, _begin(last_event_id, after), follow=follow)


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={**documented(*SIGNED_IN, NotFoundError), **_STREAM, **_NOTHING_MORE},
)
def watch_job(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    caller: Reader,
    job_id: uuid.UUID,
    last_event_id: LastEventId = None,
    after: After = None,
    follow: Follow = True,  # noqa: FBT002 - a query parameter
) -> Response:
    """Follow one job's events to its end; a job that is retried later is another stream."""
    begin = _begin(last_event_id, after)

    def is_over() -> bool:
        with server.database.read() as session:
            return find_job(session, job_id, caller.organization_id).state in ENDED

    with server.database.read() as session:
        job = find_job(session, job_id, caller.organization_id)
        project_id = job.project_id
        if job.state in ENDED and not events_after(session, project_id, after=begin, job_id=job_id, limit=1):
            return Response(status_code=status.HTTP_204_NO_CONTENT)
    return _stream(server, caller, project_id, job_id, begin, follow=follow, is_over=is_over)


def _begin(last_event_id: str | None, after: int | None) -> int:
    if last_event_id is None:
        return after or 0
    is_number = last_event_id.isascii() and last_event_id.isdecimal()
    if not is_number or int(last_event_id) >= MAX_NUMBER:
        raise InvalidRequestError(f"Last-Event-ID: {last_event_id!r} is no number of an event")
    return int(last_event_id)


def _stream(
    server: Server,
    caller: UserCaller,
    project_id: uuid.UUID,
    job_id: uuid.UUID | None,
    after: int,
    *,
    follow: bool,
    is_over: IsOver = never,
) -> StreamingResponse:
    def read(number: int) -> Sequence[Event]:
        with server.database.read() as session:
            if not is_admitted(session, caller, now=server.now):
                return ()
            return events_after(session, project_id, after=number, job_id=job_id, limit=PAGE)

    def is_at_end() -> bool:
        """Look at every turn whether the reader was shut out since: the stream ends, and shows no more."""
        with server.database.read() as session:
            if not is_admitted(session, caller, now=server.now):
                return True
        return is_over()

    return StreamingResponse(
        stream(read, server.bus, after=after, follow=follow, is_over=is_at_end),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
