"""The federation's public facts, and revocation lists of an offline root."""

from fastapi import APIRouter

from backend.audit import record
from backend.auth.callers import Admin
from backend.encoding import from_base64, to_base64
from backend.errors import EVERYWHERE, SIGNED_IN, documented
from backend.federation.errors import (
    CertificateForSignerRefusedError,
    MalformedCertificateRefusedError,
    MalformedListRefusedError,
    RevocationListRefusedError,
)
from backend.federation.revoking import pending_revocations, settle_pending
from backend.federation.schemas import (
    FederationAnswer,
    PendingRevocationAnswer,
    RevocationListBody,
    RevocationsAnswer,
    SpecSignerAnswer,
    SpecSignerBody,
    fingerprint_text,
)
from backend.federation.service import federation_of, install_revocations, revocations_of
from backend.federation.signer import (
    SIGNER_NAME,
    check_signer_certificate,
    next_signer_key,
    signer_certificate,
    signer_key,
    ticket_key,
)
from backend.federation.signer_rotation import replace_signer, rotate_signer
from backend.jobs.signing import sign_jobs_anew
from backend.parties.service import apply_revocations
from backend.server import Server, ServerDep

router = APIRouter(prefix="/federation", tags=["federation"])


@router.get("", responses=documented(*EVERYWHERE))
def show_federation(server: ServerDep) -> FederationAnswer:
    """Show the root's key and the newest revocation list; anybody may ask."""
    return _describe(server)


@router.put(
    "/revocations", responses=documented(*SIGNED_IN, MalformedListRefusedError, RevocationListRefusedError)
)
def put_revocations(server: ServerDep, caller: Admin, body: RevocationListBody) -> FederationAnswer:
    """Install a revocation list that the offline root signed."""
    data = from_base64(body.revocation_list, field="revocation_list")
    with server.database.write() as session:
        installed = install_revocations(session, data)
        settle_pending(session, installed)
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


@router.get("/spec-signer", responses=documented(*SIGNED_IN))
def show_spec_signer(server: ServerDep, caller: Admin) -> SpecSignerAnswer:  # noqa: ARG001 - admits
    """Show this server's key for job specifications, and the root's certificate for it."""
    return _describe_signer(server)


@router.put(
    "/spec-signer",
    responses=documented(*SIGNED_IN, MalformedCertificateRefusedError, CertificateForSignerRefusedError),
)
def put_spec_signer(server: ServerDep, caller: Admin, body: SpecSignerBody) -> SpecSignerAnswer:
    """Install the certificate that the offline root signed."""
    data = from_base64(body.certificate, field="certificate")
    with server.database.write() as session:
        row = federation_of(session, lock=True)
        certificate = check_signer_certificate(row, data, now=server.now())
        if row.next_signer_key is not None:
            replace_signer(session, server.authority, row, certificate, actor=caller.actor, now=server.now())
            sign_jobs_anew(session, now=server.now())
        row.signer_certificate = data
        record(
            session,
            caller.actor,
            at=server.now(),
            action="install_spec_signer",
            subject_kind="federation",
            subject_name=certificate.name,
            details={"serial": str(certificate.serial)},
        )
    return _describe_signer(server)


@router.post("/spec-signer/rotation", responses=documented(*SIGNED_IN))
def rotate_spec_signer(server: ServerDep, caller: Admin) -> SpecSignerAnswer:
    """Make a new key for specifications; with an offline root it waits for its certificate, as the answer."""
    with server.database.write() as session:
        is_in_use = rotate_signer(
            session,
            server.authority,
            days=server.settings.certificate_days,
            actor=caller.actor,
            now=server.now(),
        )
        if is_in_use:
            sign_jobs_anew(session, now=server.now())
    return _describe_signer(server)


@router.get("/revocations", responses=documented(*SIGNED_IN))
def show_revocations(server: ServerDep, caller: Admin) -> RevocationsAnswer:  # noqa: ARG001 - admits
    """Show the newest list, and what the offline root has still to sign."""
    with server.database.read() as session:
        row = federation_of(session)
        revocations = revocations_of(row)
        return RevocationsAnswer(
            number=revocations.number if revocations else 0,
            revocation_list=to_base64(row.revocation_list) if row.revocation_list else None,
            pending=[PendingRevocationAnswer.model_validate(item) for item in pending_revocations(session)],
        )


def _describe_signer(server: Server) -> SpecSignerAnswer:
    with server.database.read() as session:
        row = federation_of(session)
        following = next_signer_key(row)
        certificate = None if following else row.signer_certificate
        key = following or signer_key(row)
        current = signer_certificate(row)
        return SpecSignerAnswer(
            name=SIGNER_NAME,
            public_key=to_base64(key.public_key.raw),
            certificate=to_base64(certificate) if certificate else None,
            current_until=current.not_after if current else None,
        )


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
            ticket_public_key=ticket_key(row).public_key.raw.hex(),
        )
