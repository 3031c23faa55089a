"""Who calls: found from the token by one read, before the route runs.

The look-up has a transaction of its own, which ends here: see ``backend.db.database``.
"""

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from backend.audit import Actor
from backend.auth.cookies import token_in_cookie
from backend.auth.permissions import Grant, Permission, is_demanded, scopes_of
from backend.auth.repository import TokenOwner, find_api_token, find_token_owner, roles_in_projects
from backend.auth.tokens import MAX_TOKEN, TokenPrefix, token_digest
from backend.clock import Clock
from backend.db.models import PartyKind, Role, TokenKind
from backend.errors import FactorDemandedError, ForbiddenError, NotSignedInError
from backend.parties.sessions import find_session, is_open_session
from backend.server import ServerDep

_bearer = HTTPBearer(auto_error=False, description="A token of a sign-in, an API token, or a party's token.")


@dataclass(frozen=True, slots=True)
class UserCaller:
    """A person, or a program with that person's API token.

    Attributes:
        lacks_factor: The organisation demands a second factor of this sign-in, and there is none yet.
    """

    user_id: uuid.UUID
    name: str
    membership_id: uuid.UUID
    organization_id: uuid.UUID
    role: Role
    grant: Grant
    token_id: uuid.UUID
    token_kind: TokenKind
    address: str
    lacks_factor: bool = False

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the caller may do in the organisation as a whole."""
        return self.grant.everywhere

    @property
    def actor(self) -> Actor:
        """This caller as the audit names it."""
        return Actor("user", self.name, self.address, self.organization_id)

    def require(self, permission: Permission, project_id: uuid.UUID) -> None:
        """Refuse what the caller may not do in a project.

        Raises:
            ForbiddenError: It lacks the permission there.
        """
        if permission not in self.grant.in_project(project_id):
            raise _lacks(self, permission)


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


def find_caller(
    request: Request,
    server: ServerDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Return whose token came with the request.

    Raises:
        NotSignedInError, SessionEndedError: Nobody's, or it is not valid any more.
        CrossSiteError: A browser's cookie came with a request that our own page did not make.
    """
    token = credentials.credentials if credentials else token_in_cookie(request, server.settings)
    if token is None:
        raise NotSignedInError("the request carries no token")
    if len(token) > MAX_TOKEN:
        raise NotSignedInError(
            f"the token has {len(token)} characters; none of ours has more than {MAX_TOKEN}"
        )
    find = _find_party if token.startswith(TokenPrefix.PARTY) else _find_user
    with server.database.read() as session:
        return find(session, token_digest(token), server.now, address_of(request))


CallerDep = Annotated[Caller, Depends(find_caller)]


def is_admitted(session: Session, caller: Caller, *, now: Clock) -> bool:
    """Tell whether a caller from before may go on: for answers that last, like streams and downloads.

    What it may do was decided when it called; this finds that it may not read any more: signed out, revoked,
    disabled, expired.
    """
    if isinstance(caller, PartyCaller):
        return is_open_session(session, caller.session_id)
    found = find_token_owner(session, caller.token_id)
    if found is None or _objection(found, now) is not None:
        return False
    if _lacks_factor(found):
        return False
    return Permission.READ in _grant(session, found).everywhere


def _find_user(session: Session, digest: bytes, now: Clock, address: str) -> UserCaller:
    found = find_api_token(session, digest)
    if found is None:
        raise NotSignedInError("the token is unknown or was revoked")
    if (objection := _objection(found, now)) is not None:
        raise NotSignedInError(objection)
    return UserCaller(
        user_id=found.user.id,
        name=found.user.name,
        membership_id=found.membership.id,
        organization_id=found.membership.organization_id,
        role=found.membership.role,
        grant=_grant(session, found),
        token_id=found.token.id,
        token_kind=found.token.kind,
        address=address,
        lacks_factor=_lacks_factor(found),
    )


def _lacks_factor(found: TokenOwner) -> bool:
    """Tell whether a sign-in may do nothing yet; where a provider vouches, the factor is its business."""
    if found.has_factor or found.token.kind is not TokenKind.SESSION or found.token.by_openid:
        return False
    return is_demanded(found.factor_rule, is_admin=found.membership.role is Role.ADMIN)


def _objection(found: TokenOwner, now: Clock) -> str | None:
    if found.user.disabled_at is not None:
        return "the token is unknown or was revoked"
    if found.token.expires_at <= now():
        return f"the token expired at {found.token.expires_at.isoformat()}"
    return None


def _grant(session: Session, found: TokenOwner) -> Grant:
    member = found.membership
    return Grant(
        member=member.role,
        token=found.token.role if found.token.kind is TokenKind.API else None,
        scopes=scopes_of(found.token.scopes),
        in_projects={} if member.role is Role.ADMIN else roles_in_projects(session, member.id),
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


@dataclass(frozen=True, slots=True)
class UserWith:
    """Admits users with a permission, in their organisation or in some project of it.

    A route that asks for ``in_project`` calls :meth:`UserCaller.require` once it knows the project. None
    admits every user, also one that has to get a second factor first.
    """

    permission: Permission | None
    in_project: bool = False

    def __call__(self, caller: CallerDep) -> UserCaller:
        """Return the caller, or refuse it."""
        if not isinstance(caller, UserCaller):
            raise ForbiddenError(f"{caller.kind.value}s may not do this; it is for users")
        if self.permission is None:
            return caller
        if caller.lacks_factor:
            raise FactorDemandedError(f"{caller.name!r} has no second factor; the organisation demands one")
        held = caller.grant.somewhere if self.in_project else caller.permissions
        if self.permission not in held:
            raise _lacks(caller, self.permission)
        return caller


@dataclass(frozen=True, slots=True)
class PartyOf:
    """Admits agents, workers, or both."""

    kinds: tuple[PartyKind, ...]

    def __call__(self, caller: CallerDep) -> PartyCaller:
        """Return the caller, or refuse it."""
        if not isinstance(caller, PartyCaller) or caller.kind not in self.kinds:
            allowed_kinds = " and ".join(f"{kind.value}s" for kind in self.kinds)
            raise ForbiddenError(f"this is for {allowed_kinds} only")
        return caller


def _lacks(caller: UserCaller, permission: Permission) -> ForbiddenError:
    return ForbiddenError(
        f"{caller.name!r} ({caller.role.value}) lacks the permission {permission.value!r} here, "
        "or this token does not pass it on"
    )


AnyUser = Annotated[UserCaller, Depends(UserWith(None))]
Reader = Annotated[UserCaller, Depends(UserWith(Permission.READ))]
Admin = Annotated[UserCaller, Depends(UserWith(Permission.MANAGE))]
AuditReader = Annotated[UserCaller, Depends(UserWith(Permission.READ_AUDIT))]
ProjectResearcher = Annotated[UserCaller, Depends(UserWith(Permission.RUN_JOBS, in_project=True))]
ProjectAdmin = Annotated[UserCaller, Depends(UserWith(Permission.MANAGE, in_project=True))]
Party = Annotated[PartyCaller, Depends(PartyOf((PartyKind.SILO, PartyKind.WORKER)))]
Agent = Annotated[PartyCaller, Depends(PartyOf((PartyKind.SILO,)))]
WorkerParty = Annotated[PartyCaller, Depends(PartyOf((PartyKind.WORKER,)))]
