"""Metrics over REST: parties send their own, users read."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, status
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.auth.callers import Party, PartyCaller, Reader
from backend.db.models import JobSilo, Lease, PartyKind
from backend.errors import SIGNED_IN, documented
from backend.jobs.errors import UnknownJobError
from backend.jobs.repository import find_job
from backend.metrics import service
from backend.metrics.reporters import reporter_of
from backend.parties.errors import SessionEndedError
from backend.schemas import MAX_NUMBER, Answer, Page
from backend.server import ServerDep
from backend.watching import steps
from backend.watching.api import WatchDep
from splitlearn.control_plane.schemas import MAX_METRICS, MetricsBody

router = APIRouter(tags=["metrics"])


class MetricAnswer(Answer):
    """One number of one party; ``step`` is -1 for a number of the whole round."""

    party: str
    name: str
    round: int
    step: int
    value: float
    received_at: datetime


@router.post(
    "/metrics",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, SessionEndedError, UnknownJobError),
)
def send_metrics(server: ServerDep, watch: WatchDep, caller: Party, body: MetricsBody) -> None:
    """Send your own numbers; sending them again replaces them."""
    job_id = uuid.UUID(body.job)
    with server.database.write(quietly=True) as session:
        if not takes_part(session, caller, job_id):
            raise UnknownJobError(f"{caller.name!r} has no part in a job {body.job}")
        reporter = reporter_of(session, job_id, caller, replica=body.replica)
        now = server.now()
        new = service.keep(session, job_id, reporter.party, body.metrics, now=now)
        wires = steps.split(session, job_id, reporter, body.metrics, now=now)
    steps.count(watch, caller, new)
    for seconds in wires:
        watch.step_parts.labels("wire").observe(seconds)


@router.get("/jobs/{job_id}/metrics", responses=documented(*SIGNED_IN, UnknownJobError))
def list_metrics(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    caller: Reader,
    job_id: uuid.UUID,
    party: Annotated[str | None, Query(max_length=80, description="For example silo:north.")] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
    after: Annotated[int, Query(ge=0, lt=MAX_NUMBER, description="``next`` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_METRICS)] = MAX_METRICS,
) -> Page[MetricAnswer]:
    """List a job's numbers in the order in which they came; ``next`` goes on also after the last one."""
    with server.database.read() as session:
        find_job(session, job_id, caller.organization_id)
        rows = service.find(session, job_id, party=party, name=name, after=after, limit=limit)
        return Page(
            items=[MetricAnswer.model_validate(row) for row in rows],
            next=str(rows[-1].number) if rows else None,
        )


def takes_part(session: Session, caller: PartyCaller, job_id: uuid.UUID) -> bool:
    """Tell whether a party has a part in a job: a silo of its roster, or the worker of a lease on it."""
    if caller.kind is PartyKind.SILO:
        return session.get(JobSilo, (job_id, caller.party_id)) is not None
    query = select(Lease.job_id).where(Lease.job_id == job_id, Lease.worker_id == caller.party_id).limit(1)
    return session.scalar(query) is not None
