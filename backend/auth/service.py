"""Signing in, and tokens."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from sqlalchemy.orm import Session

from backend.audit import Actor, record
from backend.auth.callers import UserCaller
from backend.auth.errors import (
    TokenLifetimeError,
    TokenRoleError,
    WhichOrganizationError,
    WrongCredentialsError,
)
from backend.auth.permissions import PERMISSIONS, is_demanded, scopes_text
from backend.auth.repository import (
    find_token,
    find_user,
    forget_expired_tokens,
    forget_tokens_of_user,
    memberships_of,
)
from backend.auth.schemas import CreateTokenBody, FactorState
from backend.auth.second_factor import NOBODY, accept, has_factor
from backend.auth.throttle import count_attempt, forgive
from backend.auth.tokens import TokenPrefix, new_token, token_digest
from backend.db.models import ApiToken, Membership, Organization, Outcome, Role, TokenKind, User
from backend.errors import ForbiddenError, NotFoundError
from backend.server import Server


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody typed, and where."""

    name: str
    password: str
    organization: str | None
    address: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new sign-in; the token is shown once."""

    token: str
    row: ApiToken
    organization: str
    second_factor: FactorState


def sign_in(server: Server, credentials: Credentials) -> SignedIn:
    """Check a password, and the code of a second factor where there is one, and return a token.

    Three steps: count, hash without holding the database, decide. Whatever is wrong, the same is done and
    said: an answer that came after the password alone would tell whoever guesses that it was right.

    Raises:
        SignInThrottledError: Too many failures.
        WrongCredentialsError: Wrong, whatever it is that is wrong.
        WhichOrganizationError: Right, but of several organisations.
    """
    name, address = credentials.name, credentials.address
    with server.database.write() as session:
        count_attempt(session, server.settings, name=name, address=address, now=server.now())
        user = find_user(session, name)
        stored = user.password_hash if user and user.disabled_at is None else None
    right = server.passwords.verify(credentials.password, stored)
    with server.database.write() as session:
        proof = accept(session, user, credentials.code, spend=right, now=server.now())
        if user is None or not right or proof is None:
            _refuse(session, server, credentials, user=user)
        forgive(session, server.settings, name=name, address=address)
        entry = Entry(user, credentials.address, proof=proof.value)
        return open_session(session, server, entry, organization=credentials.organization)


def change_password(server: Server, caller: UserCaller, *, current: str, new: str) -> None:
    """Change the caller's password; all its other sign-ins and tokens end.

    Raises:
        SignInThrottledError: Too many wrong ones.
        WrongCredentialsError: The current password is wrong.
    """
    with server.database.write() as session:
        count_attempt(session, server.settings, name=caller.name, address=caller.address, now=server.now())
        user = find_user(session, caller.name)
        assert user is not None
    if not server.passwords.verify(current, user.password_hash):
        with server.database.write() as session:
            _record(
                session,
                server,
                caller,
                action="change_password",
                subject=("user", caller.name),
                outcome=Outcome.REFUSED,
            )
        raise WrongCredentialsError("the current password is wrong")
    hashed = server.passwords.hash(new)
    with server.database.write() as session:
        forgive(session, server.settings, name=caller.name, address=caller.address)
        set_password(session, session.get_one(User, user.id), hashed)
        _record(session, server, caller, action="change_password", subject=("user", caller.name))


def set_password(session: Session, user: User, hashed: str) -> None:
    """Store another password; sign-ins and tokens made with the old one end."""
    user.password_hash = hashed
    forget_tokens_of_user(session, user.id)


def create_token(server: Server, caller: UserCaller, body: CreateTokenBody) -> tuple[str, ApiToken]:
    """Make an API token of the caller.

    Raises:
        ForbiddenError: The caller came with an API token itself.
        TokenLifetimeError: It would live too long.
        TokenRoleError: It would exceed its owner, or its scopes its role.
    """
    settings = server.settings
    days = body.valid_days or min(settings.api_token_days, settings.max_api_token_days)
    if days > settings.max_api_token_days:
        raise TokenLifetimeError(
            f"a token of {days} days was asked for; this server allows {settings.max_api_token_days}"
        )
    if caller.token_kind is not TokenKind.SESSION:
        # Else a token that was stolen could make others, which live on when it is revoked.
        raise ForbiddenError("an API token makes no other tokens; sign in with your password")
    role = body.role or caller.role
    if not PERMISSIONS[role] <= caller.grant.somewhere:
        raise TokenRoleError(f"the role {role.value!r} may do more than this caller")
    excess = set(body.scopes or ()) - PERMISSIONS[role]
    if excess:
        raise TokenRoleError(f"the role {role.value!r} does not have: {', '.join(sorted(excess))}")
    with server.database.write() as session:
        token, row = _new_row(
            server, caller.membership_id, TokenKind.API, role=role, name=body.name, life=timedelta(days=days)
        )
        row.scopes = scopes_text(body.scopes)
        session.add(row)
        _record(
            session,
            server,
            caller,
            action="create_token",
            subject=("token", body.name),
            days=days,
            role=role.value,
            scopes=row.scopes or "all",
        )
    return token, row


def revoke_token(server: Server, caller: UserCaller, token_id: uuid.UUID) -> None:
    """Delete one of the caller's API tokens.

    Raises:
        NotFoundError: The caller has none of this id.
    """
    with server.database.write() as session:
        found = find_token(session, caller.membership_id, token_id)
        if found is None:
            raise NotFoundError(f"you have no API token {token_id}")
        session.delete(found)
        _record(session, server, caller, action="revoke_token", subject=("token", found.name))


def sign_out(server: Server, caller: UserCaller) -> None:
    """Delete the very token that the caller came with."""
    with server.database.write() as session:
        row = session.get(ApiToken, caller.token_id)
        if row is not None:
            session.delete(row)
        _record(session, server, caller, action="sign_out", subject=("user", caller.name))


def _refuse(session: Session, server: Server, credentials: Credentials, *, user: User | None) -> NoReturn:
    # A name that nobody has may be a password typed into the wrong field: it is not written down.
    memberships = memberships_of(
        session, user.id if user else NOBODY
    )  # asked for nobody as well: it takes time
    actor = Actor("anonymous", "unknown", credentials.address, memberships[0][1].id if memberships else None)
    record(
        session,
        actor,
        at=server.now(),
        action="sign_in",
        subject_kind="user",
        subject_name=user.name if user else "unknown",
        outcome=Outcome.REFUSED,
    )
    raise WrongCredentialsError("the name, the password or the code is wrong")


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody who showed who it is.

    Attributes:
        proof: What was shown beside the password: a ``Proof``, or ``openid``.
    """

    user: User
    address: str
    proof: str
    by_openid: bool = False


def open_session(session: Session, server: Server, entry: Entry, *, organization: str | None) -> SignedIn:
    """Make a sign-in's token.

    Raises:
        WhichOrganizationError: The user belongs to several organisations, or not to the one named.
    """
    user = entry.user
    forget_expired_tokens(session, now=server.now())
    membership, chosen = _choose(session, user, organization)
    life = timedelta(hours=server.settings.session_hours)
    token, row = _new_row(
        server, membership.id, TokenKind.SESSION, role=membership.role, name="sign-in", life=life
    )
    row.by_openid = entry.by_openid
    session.add(row)
    record(
        session,
        Actor("user", user.name, entry.address, chosen.id),
        at=server.now(),
        action="sign_in",
        subject_kind="user",
        subject_name=user.name,
        details={"second_factor": entry.proof},
    )
    factor = _state(session, chosen, membership, user) if not entry.by_openid else FactorState.OFF
    return SignedIn(token, row, chosen.name, factor)


def _state(session: Session, organization: Organization, membership: Membership, user: User) -> FactorState:
    if has_factor(session, user.id):
        return FactorState.ON
    demanded = is_demanded(organization.second_factor, is_admin=membership.role is Role.ADMIN)
    return FactorState.DEMANDED if demanded else FactorState.OFF


def _choose(session: Session, user: User, wanted: str | None) -> tuple[Membership, Organization]:
    found = memberships_of(session, user.id)
    chosen = [pair for pair in found if wanted is None or pair[1].name == wanted]
    if len(chosen) != 1:
        names = ", ".join(organization.name for _, organization in found) or "none"
        raise WhichOrganizationError(f"{user.name!r} belongs to: {names}; asked for: {wanted or 'any'}")
    return chosen[0]


def _new_row(
    server: Server, membership_id: uuid.UUID, kind: TokenKind, *, role: Role, name: str, life: timedelta
) -> tuple[str, ApiToken]:
    token = new_token(TokenPrefix.SESSION if kind is TokenKind.SESSION else TokenPrefix.API)
    now = server.now()
    row = ApiToken(
        membership_id=membership_id,
        kind=kind,
        name=name,
        digest=token_digest(token),
        role=role,
        created_at=now,
        expires_at=now + life,
    )
    return token, row


def _record(
    session: Session,
    server: Server,
    caller: UserCaller,
    *,
    action: str,
    subject: tuple[str, str],
    outcome: Outcome = Outcome.DONE,
    **details: int | str,
) -> None:
    kind, name = subject
    record(
        session,
        caller.actor,
        at=server.now(),
        action=action,
        subject_kind=kind,
        subject_name=name,
        outcome=outcome,
        details=details,
    )
