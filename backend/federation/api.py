"""The federation's public facts, and revocation lists of an offline root."""

from fastapi import APIRouter

from backend.audit import record
from backend.auth.callers import Admin
from backend.encoding import from_base64, to_base64
from backend.errors import EVERYWHERE, SIGNED_IN, documented
from backend.federation.errors import RevocationListRefusedError
from backend.federation.schemas import FederationAnswer, RevocationListBody, fingerprint_text
from backend.federation.service import federation_of, install_revocations, revocations_of
from backend.parties.service import apply_revocations
from backend.server import Server, ServerDep

router = APIRouter(prefix="/federation", tags=["federation"])


@router.get("", responses=documented(*EVERYWHERE))
def show_federation(server: ServerDep) -> FederationAnswer:
    """Show the root's key and the newest revocation list; anybody may ask."""
    return _describe(server)


@router.put("/revocations", responses=documented(*SIGNED_IN, RevocationListRefusedError))
def put_revocations(server: ServerDep, caller: Admin, body: RevocationListBody) -> FederationAnswer:
    """Install a revocation list that the offline root signed."""
    data = from_base64(body.revocation_list, field="revocation_list")
    with server.database.write() as session:
        installed = install_revocations(session, data)
        revoked = apply_revocations(session, installed, now=server.now())
        record(
            session,
            caller.actor,
            at=server.now(),
            action="install_revocations",
            subject_kind="federation",
            subject_name=f"list {installed.number}",
            details={"num_serials": len(installed.serials), "revoked": revoked},
        )
    return _describe(server)


def _describe(server: Server) -> FederationAnswer:
    with server.database.read() as session:
        row = federation_of(session)
        revocations = revocations_of(row)
        return FederationAnswer(
            audience=server.settings.audience,
            fingerprint=fingerprint_text(row.root_public_key),
            root_public_key=to_base64(row.root_public_key),
            embedded=server.authority.embedded,
            revocation_number=revocations.number if revocations else 0,
            revocation_list=to_base64(row.revocation_list) if row.revocation_list else None,
        )
