"""The routes that a worker calls about its device and its leases."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from backend.artifacts.errors import QuotaError, UnknownBlobError
from backend.auth.callers import PartyCaller, WorkerParty
from backend.db.models import Worker
from backend.errors import SIGNED_IN, documented
from backend.jobs import hosting
from backend.jobs.errors import LeaseLostError, NoSuchRoundError, RoundCommittedError
from backend.jobs.hosting import Holder
from backend.parties.errors import SessionEndedError
from backend.server import ServerDep
from backend.watching.api import WatchDep
from splitlearn.control_plane.schemas import (
    CapabilitiesBody,
    CommitBody,
    LeaseAnswer,
    ReleaseBody,
    RenewAnswer,
    RenewBody,
)

router = APIRouter(prefix="/worker", tags=["workers' own"])
_PARTY = (*SIGNED_IN, SessionEndedError)
_LEASE = "/leases/{job_id}/{replica}"
Replica = Annotated[int, Path(ge=0, lt=1 << 16)]


@router.put("/capabilities", status_code=status.HTTP_204_NO_CONTENT, responses=documented(*_PARTY))
def put_capabilities(server: ServerDep, caller: WorkerParty, body: CapabilitiesBody) -> None:
    """Tell what this worker's device can do."""
    with server.database.write() as session:
        worker = session.get_one(Worker, caller.party_id)
        worker.capabilities, worker.reported_at = body.model_dump(mode="json"), server.now()


@router.get(_LEASE, responses=documented(*_PARTY, LeaseLostError))
def show_lease(
    server: ServerDep,
    caller: WorkerParty,
    job_id: uuid.UUID,
    replica: Replica,
    epoch: Annotated[int, Query(ge=1, lt=1 << 32)],
) -> LeaseAnswer:
    """Ask what a dispatch is about; an old one is refused."""
    with server.database.write() as session:
        holder = _holder(caller, job_id, replica)
        return hosting.show(session, server.settings, holder, epoch=epoch, now=server.now())


@router.post(f"{_LEASE}/renew", responses=documented(*_PARTY, LeaseLostError, NoSuchRoundError))
def renew_lease(
    server: ServerDep, caller: WorkerParty, job_id: uuid.UUID, replica: Replica, body: RenewBody
) -> RenewAnswer:
    """Keep a lease; learn whether to go on, and under which epoch."""
    with server.database.write(quietly=True) as session:
        return hosting.renew(
            session, server.settings, _holder(caller, job_id, replica), body, now=server.now()
        )


@router.post(
    f"{_LEASE}/rounds",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(
        *_PARTY, LeaseLostError, NoSuchRoundError, RoundCommittedError, UnknownBlobError, QuotaError
    ),
)
def commit_round(  # noqa: PLR0917 - FastAPI calls it by name
    server: ServerDep,
    watch: WatchDep,
    caller: WorkerParty,
    job_id: uuid.UUID,
    replica: Replica,
    body: CommitBody,
) -> None:
    """Commit a round whose checkpoint is in the store."""
    with server.database.write() as session:
        is_average = hosting.commit(
            session,
            server.settings,
            server.store,
            _holder(caller, job_id, replica),
            body,
            now=server.now(),
        )
    if not is_average:  # which is of rounds that were counted
        watch.round_committed(body.seconds)


@router.post(
    f"{_LEASE}/release",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*_PARTY, LeaseLostError, UnknownBlobError, QuotaError),
)
def release_lease(
    server: ServerDep, caller: WorkerParty, job_id: uuid.UUID, replica: Replica, body: ReleaseBody
) -> None:
    """Give a lease back, and say how it ended."""
    with server.database.write() as session:
        hosting.release(
            session,
            server.settings,
            server.store,
            _holder(caller, job_id, replica),
            body,
            now=server.now(),
        )


def _holder(caller: PartyCaller, job_id: uuid.UUID, replica: int) -> Holder:
    return Holder(job_id, replica, caller.party_id, caller.name, caller.epoch)
