"""The routes by which a worker hosts the trunk for a silo that generates."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import PartyCaller, WorkerParty
from backend.errors import SIGNED_IN, documented
from backend.generations import hosting
from backend.generations.hosting import Host
from backend.jobs.errors import LeaseLostError
from backend.parties.errors import SessionEndedError
from backend.server import ServerDep
from splitlearn.control_plane.generation_schemas import (
    GenerationLease,
    GenerationReleaseBody,
    GenerationRenewAnswer,
    GenerationRenewBody,
)

router = APIRouter(prefix="/worker/generations/{generation_id}", tags=["workers' own"])
_HELD = documented(*SIGNED_IN, SessionEndedError, LeaseLostError)


@router.get("", responses=_HELD)
def take_generation(
    server: ServerDep,
    caller: WorkerParty,
    generation_id: uuid.UUID,
    epoch: Annotated[int, Query(ge=1, lt=1 << 32)],
) -> GenerationLease:
    """Ask what a dispatch is about; an old one is refused."""
    with server.database.write(quietly=True) as session:
        host = _host(caller, generation_id)
        return hosting.take(session, server.settings, host, epoch=epoch, now=server.now())


@router.post("/renew", responses=_HELD)
def renew_generation(
    server: ServerDep, caller: WorkerParty, generation_id: uuid.UUID, body: GenerationRenewBody
) -> GenerationRenewAnswer:
    """Keep a lease; refused once the session has ended."""
    with server.database.write(quietly=True) as session:
        host = _host(caller, generation_id)
        return hosting.renew(session, server.settings, host, body, now=server.now())


@router.post("/release", status_code=status.HTTP_204_NO_CONTENT, responses=_HELD)
def release_generation(
    server: ServerDep, caller: WorkerParty, generation_id: uuid.UUID, body: GenerationReleaseBody
) -> None:
    """Give a lease back, and say how it ended."""
    with server.database.write() as session:
        hosting.release(session, _host(caller, generation_id), body, now=server.now())


def _host(caller: PartyCaller, generation_id: uuid.UUID) -> Host:
    return Host(generation_id, caller.party_id, caller.name, caller.epoch)
