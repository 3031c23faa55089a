"""What agents and workers call: enrolment, log-in, and their session."""

from fastapi import APIRouter, Request, status

from backend.auth.callers import Party, address_of
from backend.encoding import from_base64, to_base64
from backend.errors import EVERYWHERE, SIGNED_IN, documented, refused_as
from backend.federation.service import federation_of, revocations_of
from backend.parties import rotation, service, sessions
from backend.parties.errors import (
    CertificateExpiredError,
    FingerprintRefusedError,
    IdentityInUseError,
    InvitationExpiredError,
    InvitationUnknownError,
    InvitationUsedError,
    InvitationWithdrawnError,
    KeyRefusedError,
    LoginRefusedError,
    NonceRefusedError,
    PartyNameTakenError,
    PartyPendingError,
    PartyRevokedError,
    ProofRefusedError,
    SessionEndedError,
    WrongRootError,
)
from backend.parties.nonces import make_nonce
from backend.parties.schemas import (
    EnrolAnswer,
    EnrolBody,
    LoginAnswer,
    LoginBody,
    NonceAnswer,
    RotatedBody,
    RotationAnswer,
    RotationBody,
    SessionAnswer,
)
from backend.server import ServerDep
from splitlearn.identity import Fingerprint, PublicKey

router = APIRouter(tags=["admission"])

_ENROLMENT = (
    *EVERYWHERE,
    FingerprintRefusedError,
    KeyRefusedError,
    InvitationUnknownError,
    InvitationUsedError,
    InvitationExpiredError,
    InvitationWithdrawnError,
    WrongRootError,
    ProofRefusedError,
    PartyNameTakenError,
    PartyRevokedError,
)
_LOGIN = (
    *EVERYWHERE,
    NonceRefusedError,
    LoginRefusedError,
    PartyPendingError,
    PartyRevokedError,
    CertificateExpiredError,
    IdentityInUseError,
)

_ROTATION = (
    *EVERYWHERE,
    NonceRefusedError,
    LoginRefusedError,
    PartyPendingError,
    PartyRevokedError,
    CertificateExpiredError,
)


@router.post("/enrolment", responses=documented(*_ENROLMENT))
def enrol(server: ServerDep, request: Request, body: EnrolBody) -> EnrolAnswer:
    """Enrol with an invitation; send it again with the same key while the answer is pending."""
    with refused_as(FingerprintRefusedError):
        fingerprint = Fingerprint.parse(body.fingerprint)
    with refused_as(KeyRefusedError):
        public_key = PublicKey(from_base64(body.public_key, field="public_key"))
    enrolment = service.Enrolment(
        secret=from_base64(body.secret, field="secret"),
        fingerprint=fingerprint,
        public_key=public_key,
        signature=from_base64(body.signature, field="signature"),
        address=address_of(request),
    )
    with server.database.write() as session:
        kind, party = service.enrol(session, server.settings, server.authority, enrolment, now=server.now())
        return EnrolAnswer(
            kind=kind,
            name=party.name,
            status=party.status,
            certificate=to_base64(party.certificate) if party.certificate else None,
            root_public_key=to_base64(server.authority.public_key.raw),
        )


@router.get("/login/nonce", responses=documented(*EVERYWHERE))
def get_nonce(server: ServerDep) -> NonceAnswer:
    """Ask for a nonce to sign; no clock of yours is asked."""
    settings = server.settings
    with server.database.read() as session:
        key = federation_of(session).nonce_key
    return NonceAnswer(
        nonce=make_nonce(key, audience=settings.audience, now=server.now()),
        audience=settings.audience,
        valid_seconds=settings.login_nonce_seconds,
    )


@router.post("/login", responses=documented(*_LOGIN))
def log_in(server: ServerDep, request: Request, body: LoginBody) -> LoginAnswer:
    """Exchange a signed nonce for a token; a process that owns the state folder takes over at once."""
    login = sessions.Login(
        kind=body.kind,
        name=body.name,
        nonce=body.nonce,
        boot_id=body.boot_id,
        previous_boot_id=body.previous_boot_id or "",
        signature=from_base64(body.signature, field="signature"),
        address=address_of(request),
    )
    with server.database.write() as session:
        logged_in = sessions.log_in(session, server.settings, server.authority, login, now=server.now())
        row = logged_in.session
        return LoginAnswer(token=logged_in.token, expires_at=row.expires_at, epoch=row.epoch)


@router.post("/rotation", responses=documented(*_ROTATION, KeyRefusedError))
def begin_rotation(server: ServerDep, request: Request, body: RotationBody) -> RotationAnswer:
    """Have a new key certified, signed for by the old one; the old one works until the new one is in use."""
    with refused_as(KeyRefusedError):
        public_key = PublicKey(from_base64(body.public_key, field="public_key"))
    asked = rotation.Asked(
        public_key,
        from_base64(body.signature, field="signature"),
        from_base64(body.new_signature, field="new_signature"),
    )
    word = rotation.Word(body.kind, body.name, body.nonce, address_of(request))
    with server.database.write() as session:
        party = rotation.begin(session, server.settings, server.authority, word, asked, now=server.now())
        certificate = party.next_certificate
    return RotationAnswer(certificate=to_base64(certificate) if certificate else None)


@router.post("/rotation/finish", responses=documented(*_ROTATION))
def finish_rotation(server: ServerDep, request: Request, body: RotatedBody) -> RotationAnswer:
    """Say that the new key is in use; the old one is refused from now on."""
    word = rotation.Word(body.kind, body.name, body.nonce, address_of(request))
    signature = from_base64(body.signature, field="signature")
    with server.database.write() as session:
        party = rotation.finish(session, server.settings, server.authority, word, signature, now=server.now())
        certificate = party.certificate
    return RotationAnswer(certificate=to_base64(certificate) if certificate else None)


@router.post("/session/heartbeat", responses=documented(*SIGNED_IN, SessionEndedError))
def send_heartbeat(server: ServerDep, caller: Party) -> SessionAnswer:
    """Say that this process lives; learn the newest revocation list's number."""
    with server.database.write(quietly=True) as session:
        row = sessions.heartbeat(session, caller.session_id, now=server.now())
        revocations = revocations_of(federation_of(session))
        return SessionAnswer(
            kind=caller.kind,
            name=caller.name,
            epoch=row.epoch,
            expires_at=row.expires_at,
            revocation_number=revocations.number if revocations else 0,
        )


@router.delete("/session", status_code=status.HTTP_204_NO_CONTENT, responses=documented(*SIGNED_IN))
def log_out(server: ServerDep, caller: Party) -> None:
    """End this session, so that the next process need not wait."""
    with server.database.write() as session:
        sessions.log_out(session, caller.session_id, now=server.now())
