"""Data sets: announced by agents, seen by people."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Agent, Reader
from backend.datasets import service
from backend.datasets.repository import announced_in
from backend.datasets.schemas import DatasetAnswer
from backend.db.models import Dataset, PartyKind, Silo
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.parameters import PathName
from backend.parties.errors import SessionEndedError
from backend.parties.repository import find_party_in
from backend.schemas import Page
from backend.server import ServerDep
from splitlearn.control_plane.schemas import DatasetsBody

router = APIRouter(tags=["data sets"])
After = Annotated[str, Query(max_length=130)]
_BETWEEN = "/"  # no name has one


@router.put(
    "/silo/datasets",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, SessionEndedError),
)
def announce_datasets(server: ServerDep, caller: Agent, body: DatasetsBody) -> None:
    """Announce all data sets of this silo; what is left out is withdrawn."""
    with server.database.write() as session:
        service.announce(session, caller.party_id, body, actor=caller.actor, now=server.now())


@router.get("/datasets", responses=documented(*SIGNED_IN))
def list_datasets(server: ServerDep, caller: Reader, after: After = "") -> Page[DatasetAnswer]:
    """List what your organisation's silos announce, by silo and name."""
    silo, _, name = after.partition(_BETWEEN)
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = announced_in(session, caller.organization_id, silo=None, after=(silo, name), limit=limit + 1)
        items = [_answer(*row) for row in rows[:limit]]
    last = f"{items[-1].silo}{_BETWEEN}{items[-1].name}" if len(rows) > limit else None
    return Page(items=items, next=last)


@router.get("/silos/{name}/datasets", responses=documented(*SIGNED_IN, NotFoundError))
def list_silo_datasets(
    server: ServerDep, caller: Reader, name: PathName, after: Annotated[str, Query(max_length=64)] = ""
) -> Page[DatasetAnswer]:
    """List what one silo announces, by name."""
    limit = server.settings.max_page
    with server.database.read() as session:
        if find_party_in(session, PartyKind.SILO, name, caller.organization_id) is None:
            raise NotFoundError(f"your organisation has no silo {name!r}")
        rows = announced_in(session, caller.organization_id, silo=name, after=(name, after), limit=limit + 1)
        items = [_answer(*row) for row in rows[:limit]]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


def _answer(silo: Silo, dataset: Dataset) -> DatasetAnswer:
    return DatasetAnswer(
        silo=silo.name,
        name=dataset.name,
        task=dataset.task,
        num_rows=dataset.num_rows,
        schema_digest=dataset.schema_digest.hex(),
        announced_at=dataset.announced_at,
    )
