"""Who calls: found from the token by one read, before the route runs.

The look-up has a transaction of its own, which ends here: see ``backend.db.database``.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from backend.audit import Actor
from backend.auth.permissions import Permission, allowed
from backend.auth.repository import find_api_token
from backend.auth.tokens import MAX_TOKEN, TokenPrefix, token_digest
from backend.clock import Clock
from backend.db.models import PartyKind, Role
from backend.errors import ForbiddenError, NotSignedInError
from backend.parties.sessions import find_session
from backend.server import ServerDep

_bearer = HTTPBearer(auto_error=False, description="A token of a sign-in, an API token, or a party's token.")


@dataclass(frozen=True, slots=True)
class UserCaller:
    """A person, or a program with that person's API token."""

    user_id: uuid.UUID
    name: str
    membership_id: uuid.UUID
    organization_id: uuid.UUID
    role: Role
    permissions: frozenset[Permission]
    token_id: uuid.UUID
    address: str

    @property
    def actor(self) -> Actor:
        """This caller as the audit names it."""
        return Actor("user", self.name, self.address, self.organization_id)


@dataclass(frozen=True, slots=True)
class PartyCaller:
    """A logged-in agent or worker process."""

    kind: PartyKind
    party_id: uuid.UUID
    name: str
    organization_id: uuid.UUID
    session_id: uuid.UUID
    epoch: int
    address: str

    @property
    def actor(self) -> Actor:
        """This caller as the audit names it."""
        return Actor(self.kind.value, self.name, self.address, self.organization_id)


Caller = UserCaller | PartyCaller


def address_of(request: Request) -> str:
    """Return the peer's address; uvicorn puts a trusted proxy's word in its place."""
    return (request.client.host if request.client else "")[:64]


def _caller(
    request: Request,
    server: ServerDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise NotSignedInError("the request carries no token")
    token = credentials.credentials
    if len(token) > MAX_TOKEN:
        raise NotSignedInError(
            f"the token has {len(token)} characters; none of ours has more than {MAX_TOKEN}"
        )
    find = _find_party if token.startswith(TokenPrefix.PARTY) else _find_user
    with server.database.read() as session:
        return find(session, token_digest(token), server.now, address_of(request))


CallerDep = Annotated[Caller, Depends(_caller)]


def _find_user(session: Session, digest: bytes, now: Clock, address: str) -> UserCaller:
    found = find_api_token(session, digest)
    if found is None or found.user.disabled_at is not None:
        raise NotSignedInError("the token is unknown or was revoked")
    if found.token.expires_at <= now():
        raise NotSignedInError(f"the token expired at {found.token.expires_at.isoformat()}")
    return UserCaller(
        user_id=found.user.id,
        name=found.user.name,
        membership_id=found.membership.id,
        organization_id=found.membership.organization_id,
        role=found.membership.role,
        permissions=allowed((found.token.role, found.membership.role)),
        token_id=found.token.id,
        address=address,
    )


def _find_party(session: Session, digest: bytes, now: Clock, address: str) -> PartyCaller:
    found = find_session(session, digest, now=now())
    return PartyCaller(
        kind=found.kind,
        party_id=found.party.id,
        name=found.party.name,
        organization_id=found.party.organization_id,
        session_id=found.session.id,
        epoch=found.session.epoch,
        address=address,
    )


def _user_with(permission: Permission) -> Callable[[Caller], UserCaller]:
    def check(caller: CallerDep) -> UserCaller:
        if not isinstance(caller, UserCaller):
            raise ForbiddenError(f"{caller.kind.value}s may not do this; it is for users")
        if permission not in caller.permissions:
            raise ForbiddenError(
                f"{caller.name!r} ({caller.role.value}) lacks the permission {permission.value!r} here, "
                "or this token does not pass it on"
            )
        return caller

    return check


def _party_of(*kinds: PartyKind) -> Callable[[Caller], PartyCaller]:
    def check(caller: CallerDep) -> PartyCaller:
        if not isinstance(caller, PartyCaller) or caller.kind not in kinds:
            allowed_kinds = " and ".join(f"{kind.value}s" for kind in kinds)
            raise ForbiddenError(f"this is for {allowed_kinds} only")
        return caller

    return check


Reader = Annotated[UserCaller, Depends(_user_with(Permission.READ))]
Researcher = Annotated[UserCaller, Depends(_user_with(Permission.RUN_JOBS))]
Admin = Annotated[UserCaller, Depends(_user_with(Permission.MANAGE))]
AuditReader = Annotated[UserCaller, Depends(_user_with(Permission.READ_AUDIT))]
Party = Annotated[PartyCaller, Depends(_party_of(PartyKind.SILO, PartyKind.WORKER))]
Agent = Annotated[PartyCaller, Depends(_party_of(PartyKind.SILO))]
WorkerParty = Annotated[PartyCaller, Depends(_party_of(PartyKind.WORKER))]
