"""The routes that a silo's agent calls about jobs."""

import uuid

from fastapi import APIRouter, status

from backend.auth.callers import Agent, PartyCaller
from backend.errors import SIGNED_IN, documented
from backend.federation.service import federation_of, revocations_of
from backend.jobs import silo_part
from backend.jobs.errors import JobOverError, NoLeaseError, UnknownJobError, WrongStateError
from backend.jobs.silo_part import Part
from backend.parties.errors import SessionEndedError
from backend.server import ServerDep
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    AttachBody,
    FinishBody,
    SiloJobsAnswer,
    SiloLease,
)

router = APIRouter(prefix="/silo/jobs", tags=["silo agents"])
_PARTY = (*SIGNED_IN, SessionEndedError)


@router.get("", responses=documented(*_PARTY))
def ask_for_silo_jobs(server: ServerDep, caller: Agent) -> SiloJobsAnswer:
    """Ask which jobs want something of this silo; ask again after ``poll_seconds``."""
    with server.database.read() as session:
        revocations = revocations_of(federation_of(session))
        return SiloJobsAnswer(
            poll_seconds=server.settings.poll_seconds,
            revocation_number=revocations.number if revocations else 0,
            jobs=silo_part.jobs_for(session, server.settings, caller.party_id),
        )


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
