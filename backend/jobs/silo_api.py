"""The routes that a silo's agent calls about jobs."""

import asyncio
import hashlib
import random
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.concurrency import run_in_threadpool

from backend.auth.callers import Agent, PartyCaller
from backend.db.models import PartyStatus, Silo
from backend.errors import SIGNED_IN, documented
from backend.federation.service import federation_of, revocations_of
from backend.jobs import silo_part
from backend.jobs.errors import JobOverError, NoLeaseError, UnknownJobError, WrongStateError
from backend.jobs.silo_part import Part
from backend.jobs.silo_watch import SiloWatch
from backend.parties.errors import SessionEndedError
from backend.server import Server, ServerDep
from splitlearn.control_plane.schemas import (
    MAX_WAIT_SECONDS,
    ApprovalBody,
    AttachBody,
    FinishBody,
    SiloJobsAnswer,
    SiloLease,
)

router = APIRouter(prefix="/silo/jobs", tags=["silo agents"])
_PARTY = (*SIGNED_IN, SessionEndedError)
MAX_TAG = 32
"""Characters of an answer's tag."""
_SHORTEST_WAIT = 0.7
"""Of the time that is asked for: agents that began together, as after our restart, ask apart before long."""


def _watch_of(request: Request) -> SiloWatch:
    watch = request.app.state.silo_watch
    assert isinstance(watch, SiloWatch)
    return watch


SiloWatchDep = Annotated[SiloWatch, Depends(_watch_of)]


@router.get("", responses=documented(*_PARTY))
async def ask_for_silo_jobs(
    server: ServerDep,
    watch: SiloWatchDep,
    caller: Agent,
    known: Annotated[str, Query(max_length=MAX_TAG)] = "",
    wait_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0,
) -> SiloJobsAnswer:
    """Ask which jobs want something of this silo; ask again after ``poll_seconds``.

    With ``known``, the tag of an earlier answer, the answer is held back until there is another one, for
    ``wait_seconds`` at most, and 0.7 of them at least. A silo that may not speak any more is let go at once,
    and refused when it asks again.
    """
    wait_seconds *= random.uniform(_SHORTEST_WAIT, 1)  # noqa: S311 - no secret
    until = asyncio.get_running_loop().time() + wait_seconds
    async with watch.listening(caller.party_id) as woken:
        while True:
            woken.clear()
            answer, is_current = await run_in_threadpool(_answer, server, caller)
            if answer.tag != known or not is_current or watch.is_closed:
                return answer
            try:
                async with asyncio.timeout_at(until):
                    await woken.wait()
            except TimeoutError:
                return answer


def _answer(server: Server, caller: PartyCaller) -> tuple[SiloJobsAnswer, bool]:
    """Return what an agent is told, and whether it still speaks for its silo."""
    with server.database.read() as session:
        revocations = revocations_of(federation_of(session))
        answer = SiloJobsAnswer(
            poll_seconds=server.settings.poll_seconds,
            revocation_number=revocations.number if revocations else 0,
            jobs=silo_part.jobs_for(session, server.settings, caller.party_id),
        )
        silo = session.get_one(Silo, caller.party_id)
        is_current = silo.status is PartyStatus.ENROLLED and silo.epoch == caller.epoch
    tag = hashlib.sha256(answer.model_dump_json().encode()).hexdigest()[:MAX_TAG]
    return answer.model_copy(update={"tag": tag}), is_current


@router.put(
    "/{job_id}/approval",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*_PARTY, UnknownJobError, JobOverError, WrongStateError),
)
def approve_silo_job(server: ServerDep, caller: Agent, job_id: uuid.UUID, body: ApprovalBody) -> None:
    """Approve a job, or refuse it with counts; never with a row."""
    with server.database.write() as session:
        silo_part.approve(session, _part(caller, job_id), body, now=server.now())


@router.post("/{job_id}/attach", responses=documented(*_PARTY, UnknownJobError, JobOverError, NoLeaseError))
def attach_silo_job(server: ServerDep, caller: Agent, job_id: uuid.UUID, body: AttachBody) -> SiloLease:
    """Join the current epoch; another attempt of yours on it raises it, and all begin again."""
    with server.database.write() as session:
        return silo_part.attach(
            session, server.settings, _part(caller, job_id), body.attempt, now=server.now()
        )


@router.post(
    "/{job_id}/finish",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*_PARTY, UnknownJobError, WrongStateError),
)
def finish_silo_job(server: ServerDep, caller: Agent, job_id: uuid.UUID, body: FinishBody) -> None:
    """Say that this silo has its result, or cannot go on."""
    with server.database.write() as session:
        silo_part.finish(session, _part(caller, job_id), body, now=server.now())


def _part(caller: PartyCaller, job_id: uuid.UUID) -> Part:
    return Part(job_id, caller.party_id, caller.name)
