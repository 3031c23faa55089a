"""The routes by which a silo generates with what its jobs trained."""

import uuid

from fastapi import APIRouter, status

from backend.auth.callers import Agent, PartyCaller
from backend.errors import SIGNED_IN, documented
from backend.generations import service
from backend.generations.errors import NoResultError, TooManyGenerationsError, UnknownGenerationError
from backend.generations.service import Asker
from backend.jobs.errors import NoSpecSignerError, UnknownJobError
from backend.parties.errors import SessionEndedError
from backend.server import ServerDep
from splitlearn.control_plane.generation_schemas import (
    OpenedGeneration,
    OpenGenerationBody,
    SiloGeneration,
)

router = APIRouter(prefix="/silo/jobs/{job_id}/generations", tags=["silo agents"])
_PARTY = (*SIGNED_IN, SessionEndedError)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*_PARTY, UnknownJobError, NoResultError, TooManyGenerationsError, NoSpecSignerError),
)
def open_silo_generation(
    server: ServerDep, caller: Agent, job_id: uuid.UUID, body: OpenGenerationBody
) -> OpenedGeneration:
    """Open a session with a job's result; a worker takes it up when one is free."""
    with server.database.write() as session:
        return service.open_generation(
            session, server.settings, _asker(caller, job_id), body.attempt, now=server.now()
        )


@router.get("/{generation_id}", responses=documented(*_PARTY, UnknownGenerationError))
def show_silo_generation(
    server: ServerDep, caller: Agent, job_id: uuid.UUID, generation_id: uuid.UUID
) -> SiloGeneration:
    """Ask how a session stands, every ``poll_seconds``; one whose silo does not ask any more ends."""
    with server.database.write(quietly=True) as session:
        return service.show_generation(
            session, server.settings, _asker(caller, job_id), generation_id, now=server.now()
        )


@router.delete(
    "/{generation_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*_PARTY, UnknownGenerationError),
)
def end_silo_generation(
    server: ServerDep, caller: Agent, job_id: uuid.UUID, generation_id: uuid.UUID
) -> None:
    """End a session; ending it again changes nothing."""
    with server.database.write() as session:
        service.end_own(session, _asker(caller, job_id), generation_id, now=server.now())


def _asker(caller: PartyCaller, job_id: uuid.UUID) -> Asker:
    return Asker(job_id, caller.party_id, caller.name, caller.actor)
