"""Logs over REST: parties tell what happened at them, people of the job's organisation read."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Party, Reader
from backend.errors import SIGNED_IN, documented
from backend.jobs.errors import UnknownJobError
from backend.jobs.repository import find_job
from backend.metrics.api import takes_part
from backend.parties.errors import SessionEndedError
from backend.schemas import MAX_NUMBER, Answer, Page
from backend.server import ServerDep
from backend.watching import logs
from splitlearn.control_plane.schemas import LogsBody

router = APIRouter(tags=["logs"])
_MAX_LINES = 1000


class LogLineAnswer(Answer):
    """One event of one party, by the party's clock."""

    number: int
    party: str
    at: datetime
    level: str
    event: str
    code: str
    round: int | None
    step: int | None
    epoch: int | None
    seconds: float | None
    received_at: datetime


@router.post(
    "/logs",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, SessionEndedError, UnknownJobError),
)
def send_logs(server: ServerDep, caller: Party, body: LogsBody) -> None:
    """Tell what happened at you, as words and numbers; sending it again changes nothing."""
    job_id = uuid.UUID(body.job)
    with server.database.write(quietly=True) as session:
        if not takes_part(session, caller, job_id):
            raise UnknownJobError(f"{caller.name!r} has no part in a job {body.job}")
        logs.keep(session, job_id, f"{caller.kind.value}:{caller.name}", body.lines, now=server.now())


@router.get("/jobs/{job_id}/logs", responses=documented(*SIGNED_IN, UnknownJobError))
def list_logs(
    server: ServerDep,
    caller: Reader,
    job_id: uuid.UUID,
    party: Annotated[str | None, Query(max_length=80, description="For example silo:north.")] = None,
    after: Annotated[int, Query(ge=0, lt=MAX_NUMBER, description="``next`` of the page before.")] = 0,
) -> Page[LogLineAnswer]:
    """List what each party told of a job, in the order in which it came; of each the newest lines."""
    with server.database.read() as session:
        find_job(session, job_id, caller.organization_id)
        rows = logs.find(session, job_id, party=party, after=after, limit=_MAX_LINES + 1)
        shown = rows[:_MAX_LINES]
        return Page(
            items=[LogLineAnswer.model_validate(row) for row in shown],
            next=str(shown[-1].number) if len(rows) > _MAX_LINES else None,
        )
