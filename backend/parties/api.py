"""Silos and workers as admins see them: the same routes for both."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Admin, Reader, UserCaller
from backend.db.models import Party, PartyKind, PartyStatus
from backend.encoding import from_base64, to_base64
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.paging import cursor_text, parse_cursor
from backend.parameters import After, PathName
from backend.parties import service
from backend.parties.errors import CertificateRefusedError, PartyNameTakenError
from backend.parties.repository import find_party_in, open_invitations, parties_of
from backend.parties.schemas import (
    CertificateBody,
    CreatedInvitationAnswer,
    InvitationAnswer,
    InviteBody,
    PartyAnswer,
    RequestFile,
)
from backend.parties.views import show_parties, show_party
from backend.schemas import Page
from backend.server import Server, ServerDep

AfterName = Annotated[str, Query(max_length=64)]


def make_router(kind: PartyKind) -> APIRouter:
    """Return the routes of one kind of party; operation ids end with the kind."""
    word = kind.value
    router = APIRouter(prefix=f"/{word}s", tags=[f"{word}s"])
    _add_invitations(router, kind)
    _add_parties(router, kind)
    _add_requests(router, kind)
    return router


def _add_invitations(router: APIRouter, kind: PartyKind) -> None:
    word = kind.value

    @router.post(
        "/invitations",
        name=f"invite_{word}",
        status_code=status.HTTP_201_CREATED,
        responses=documented(*SIGNED_IN, PartyNameTakenError),
    )
    def invite(server: ServerDep, caller: Admin, body: InviteBody) -> CreatedInvitationAnswer:
        """Make an invitation: single use, expiring, with the root's fingerprint; shown this once."""
        with server.database.write() as session:
            row, text = service.invite(
                session,
                server.settings,
                server.authority,
                _scope(server, kind, caller),
                name=body.name,
                hours=body.valid_hours,
            )
            shown = InvitationAnswer.model_validate(row)
        fingerprint = str(server.authority.fingerprint)
        return CreatedInvitationAnswer(invitation=text, fingerprint=fingerprint, **shown.model_dump())

    @router.get("/invitations", name=f"list_{word}_invitations", responses=documented(*SIGNED_IN))
    def list_invitations(server: ServerDep, caller: Reader, after: After = None) -> Page[InvitationAnswer]:
        """List the invitations that may still be used, oldest first."""
        limit, cursor = server.settings.max_page, parse_cursor(after)
        with server.database.read() as session:
            rows = open_invitations(
                session, kind, caller.organization_id, now=server.now(), after=cursor, limit=limit + 1
            )
        items = [InvitationAnswer.model_validate(row) for row in rows[:limit]]
        last = items[-1] if len(rows) > limit else None
        return Page(items=items, next=last and cursor_text(last.created_at, last.id))

    @router.delete(
        "/invitations/{invitation_id}",
        name=f"withdraw_{word}_invitation",
        status_code=status.HTTP_204_NO_CONTENT,
        responses=documented(*SIGNED_IN, NotFoundError),
    )
    def withdraw(server: ServerDep, caller: Admin, invitation_id: uuid.UUID) -> None:
        """Take an invitation back that was not used yet."""
        with server.database.write() as session:
            service.withdraw(session, _scope(server, kind, caller), invitation_id)


def _add_parties(router: APIRouter, kind: PartyKind) -> None:
    word = kind.value

    @router.get("", name=f"list_{word}s", responses=documented(*SIGNED_IN))
    def list_parties(
        server: ServerDep, caller: Reader, after: AfterName = "", status: PartyStatus | None = None
    ) -> Page[PartyAnswer]:
        """List your organisation's parties of this kind by name."""
        limit = server.settings.max_page
        with server.database.read() as session:
            rows = parties_of(
                session, kind, caller.organization_id, status=status, after=after, limit=limit + 1
            )
            items = show_parties(session, rows[:limit], now=server.now())
        return Page(items=items, next=items[-1].name if len(rows) > limit else None)

    @router.get("/{name}", name=f"show_{word}", responses=documented(*SIGNED_IN, NotFoundError))
    def show(server: ServerDep, caller: Reader, name: PathName) -> PartyAnswer:
        """Show one of them."""
        with server.database.read() as session:
            row = find_party_in(session, kind, name, caller.organization_id)
            return show_party(session, _found(row, kind, name), now=server.now())

    @router.post("/{name}/revoke", name=f"revoke_{word}", responses=documented(*SIGNED_IN, NotFoundError))
    def revoke(server: ServerDep, caller: Admin, name: PathName) -> PartyAnswer:
        """Revoke one at once: its sessions end. With an offline root, also sign the revocation there."""
        with server.database.write() as session:
            row = service.revoke(session, server.authority, _scope(server, kind, caller), name)
            return show_party(session, row, now=server.now())


def _add_requests(router: APIRouter, kind: PartyKind) -> None:
    word = kind.value

    @router.get(
        "/{name}/certificate-request",
        name=f"show_{word}_certificate_request",
        responses=documented(*SIGNED_IN, NotFoundError),
    )
    def show_request(server: ServerDep, caller: Admin, name: PathName) -> RequestFile:
        """Show the request file that the offline root signs."""
        with server.database.read() as session:
            row = _found(find_party_in(session, kind, name, caller.organization_id), kind, name)
            key = service.waiting_key(row)
            if key is None:
                raise NotFoundError(
                    f"{word} {name!r} does not wait for a certificate: it is {row.status.value}"
                )
            return RequestFile(kind=kind, name=name, public_key=to_base64(key))

    @router.put(
        "/{name}/certificate",
        name=f"put_{word}_certificate",
        responses=documented(*SIGNED_IN, NotFoundError, CertificateRefusedError),
    )
    def put_certificate(
        server: ServerDep, caller: Admin, name: PathName, body: CertificateBody
    ) -> PartyAnswer:
        """Install the certificate that the offline root signed."""
        data = from_base64(body.certificate, field="certificate")
        with server.database.write() as session:
            row = service.install_certificate(session, _scope(server, kind, caller), name, data)
            return show_party(session, row, now=server.now())


def _scope(server: Server, kind: PartyKind, caller: UserCaller) -> service.Scope:
    return service.Scope(kind, caller.organization_id, caller.actor, server.now())


def _found(row: Party | None, kind: PartyKind, name: str) -> Party:
    if row is None:
        raise NotFoundError(f"your organisation has no {kind.value} {name!r}")
    return row
