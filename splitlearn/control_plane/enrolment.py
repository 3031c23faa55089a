"""How a party joins the federation of its invitation; normative in docs/control-plane.md, section 5."""

import asyncio
import base64
import hashlib

from splitlearn.control_plane.admission import EnrolAnswer, EnrolBody, FederationAnswer
from splitlearn.control_plane.errors import PendingError
from splitlearn.control_plane.requests import OnReach, Requests, ignore_reach
from splitlearn.control_plane.state_folder import Membership, StateFolder
from splitlearn.errors import IdentityError, StorageError
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Context,
    Invitation,
    KeyMismatchError,
    MalformedInvitationError,
    PublicKey,
    SigningKey,
    enrolment_statement,
)

PENDING_POLL_SECONDS = 5.0
_ENROLLED = "enrolled"


async def enrol(
    invitation_text: str,
    state: StateFolder,
    *,
    kind: CertificateKind,
    wait: bool = False,
    on_reach: OnReach = ignore_reach,
    patience_seconds: float | None = None,
) -> Membership:
    """Enrol with an invitation, or finish what was begun with it. Hold the folder's lock.

    Nothing is sent before the root's key matches the invitation's fingerprint. Asking again with the same
    invitation costs nothing: an enrolled party is returned as it is. A revoked one comes back by a new one.

    Args:
        invitation_text: As pasted by a person.
        state: Gets key and certificate.
        kind: What this program is.
        wait: Stay until a person has signed with the offline root.
        on_reach: Told while the control plane cannot be reached.
        patience_seconds: Longest absence of the control plane; None waits for ever.

    Raises:
        MalformedInvitationError: No invitation, or one for another kind of party.
        FingerprintError: The control plane has another root than the invitation: do not go on.
        StorageError: The folder belongs to another party, or cannot be written.
        PendingError: The certificate waits for a person, and ``wait`` is off.
        RefusedError: The invitation is used, expired, withdrawn or unknown; the message says which.
        UnreachableError: Nobody answered within patience.
    """
    invitation = Invitation.parse(invitation_text)
    _refuse_other_kind(invitation, kind)
    existing = _existing(state, invitation)
    if (
        existing is not None
        and existing.certificate is not None
        and existing.invitation == _digest(invitation)
    ):
        return existing
    requests = Requests(invitation.url, on_reach=on_reach)
    try:
        federation = await requests.ask(
            "GET", "/federation", FederationAnswer, patience_seconds=patience_seconds
        )
        root = PublicKey(base64.b64decode(federation.root_public_key))
        invitation.fingerprint.check(root)
        body = _body(invitation, state.signing_key())
        while True:
            answer = await requests.ask(
                "POST", "/enrolment", EnrolAnswer, body=body, patience_seconds=patience_seconds
            )
            membership = _membership(invitation, root, answer, state)
            if membership.certificate is not None:
                return membership
            if not wait:
                raise _pending(invitation)
            await asyncio.sleep(PENDING_POLL_SECONDS)
    finally:
        await requests.close()


def _refuse_other_kind(invitation: Invitation, kind: CertificateKind) -> None:
    if invitation.kind is not kind:
        raise MalformedInvitationError(
            f"the invitation is for {invitation.kind.value} {invitation.name!r}, this program is a "
            f"{kind.value}; ask for one made by: trunkline {kind.value}s invite NAME"
        )


def _existing(state: StateFolder, invitation: Invitation) -> Membership | None:
    existing = state.membership()
    if existing is not None and not existing.is_of(invitation):
        raise StorageError(
            f"{state.path} belongs to {existing.kind} {existing.name!r} of {existing.url}, the invitation "
            f"is for {invitation.kind.value} {invitation.name!r} of {invitation.url}; choose another folder"
        )
    return existing


def _body(invitation: Invitation, key: SigningKey) -> EnrolBody:
    statement = enrolment_statement(
        audience=invitation.url,
        kind=invitation.kind,
        name=invitation.name,
        fingerprint=invitation.fingerprint,
        secret=invitation.secret,
        public_key=key.public_key,
    )
    return EnrolBody(
        secret=_text(invitation.secret),
        fingerprint=str(invitation.fingerprint),
        public_key=_text(key.public_key.raw),
        signature=_text(key.sign(Context.ENROLMENT, statement)),
    )


def _membership(
    invitation: Invitation, root: PublicKey, answer: EnrolAnswer, state: StateFolder
) -> Membership:
    if answer.certificate is not None:
        _check_certificate(base64.b64decode(answer.certificate), invitation, root, state.signing_key())
    membership = Membership(
        kind="silo" if invitation.kind is CertificateKind.SILO else "worker",
        name=invitation.name,
        url=invitation.url,
        invitation=_digest(invitation),
        root_public_key=_text(root.raw),
        certificate=answer.certificate if answer.status == _ENROLLED else None,
    )
    state.write_membership(membership)
    return membership


def _check_certificate(raw: bytes, invitation: Invitation, root: PublicKey, key: SigningKey) -> None:
    certificate = Certificate.from_bytes(raw)
    root.verify(Context.CERTIFICATE, certificate.signed_part(), certificate.signature)
    if (certificate.kind, certificate.name) != (invitation.kind, invitation.name):
        raise IdentityError(
            f"the certificate is for {certificate.kind.value} {certificate.name!r}, "
            f"invited was {invitation.kind.value} {invitation.name!r}; tell the federation"
        )
    if certificate.public_key != key.public_key:
        raise KeyMismatchError(
            f"the certificate of {certificate.name!r} is for another key than the one in the state folder; "
            "tell the federation"
        )


def _pending(invitation: Invitation) -> PendingError:
    return PendingError(
        f"{invitation.kind.value} {invitation.name!r} waits for a person with the offline root; an admin "
        "signs it by: trunkline root sign; then run the same command again",
        code="party_pending",
    )


def _digest(invitation: Invitation) -> str:
    return hashlib.sha256(invitation.secret).hexdigest()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
