"""Routes about workers alone: keeping one from further rounds, and letting it take them again."""

from fastapi import APIRouter

from backend.auth.callers import Admin
from backend.db.models import PartyKind
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.parameters import PathName
from backend.parties import service
from backend.parties.schemas import DrainAnswer
from backend.server import ServerDep

router = APIRouter(prefix="/workers", tags=["workers"])


@router.post("/{name}/drain", responses=documented(*SIGNED_IN, NotFoundError))
def drain_worker(server: ServerDep, caller: Admin, name: PathName) -> DrainAnswer:
    """Let a worker end the round under way and take no other; its job goes on elsewhere."""
    with server.database.write() as session:
        scope = service.Scope(PartyKind.WORKER, caller.organization_id, caller.actor, server.now())
        return DrainAnswer.model_validate(service.drain(session, scope, name))


@router.post("/{name}/undrain", responses=documented(*SIGNED_IN, NotFoundError))
def undrain_worker(server: ServerDep, caller: Admin, name: PathName) -> DrainAnswer:
    """Let a drained worker take rounds again."""
    with server.database.write() as session:
        scope = service.Scope(PartyKind.WORKER, caller.organization_id, caller.actor, server.now())
        return DrainAnswer.model_validate(service.undrain(session, scope, name))
