"""Signing in and out, one's own password and tokens."""

import uuid

from fastapi import APIRouter, Request, Response, status
from sqlalchemy.orm import Session

from backend.auth import service
from backend.auth.callers import AnyUser, Reader, UserCaller, address_of
from backend.auth.cookies import clear_cookie, csrf_of, set_cookie, token_in_cookie
from backend.auth.errors import (
    SignInThrottledError,
    TokenLifetimeError,
    TokenRoleError,
    WhichOrganizationError,
    WrongCredentialsError,
)
from backend.auth.permissions import PERMISSIONS, scopes_of
from backend.auth.repository import tokens_of
from backend.auth.schemas import (
    ChangePasswordBody,
    CreatedTokenAnswer,
    CreateTokenBody,
    FactorState,
    MeAnswer,
    SignInAnswer,
    SignInBody,
    TokenAnswer,
)
from backend.auth.second_factor import has_factor
from backend.db.models import ApiToken, Organization
from backend.errors import EVERYWHERE, SIGNED_IN, NotFoundError, UnavailableError, documented
from backend.organizations.repository import names_of_projects
from backend.paging import cursor_text, parse_cursor
from backend.parameters import After
from backend.schemas import Page
from backend.server import ServerDep

router = APIRouter(tags=["auth"])
_SIGN_IN = (SignInThrottledError, WrongCredentialsError, UnavailableError)


@router.post("/sign-in", responses=documented(*EVERYWHERE, *_SIGN_IN, WhichOrganizationError))
def sign_in(server: ServerDep, request: Request, response: Response, body: SignInBody) -> SignInAnswer:
    """Exchange name and password for a token, in the answer or in a cookie."""
    credentials = service.Credentials(
        name=body.name,
        password=body.password.get_secret_value(),
        organization=body.organization,
        address=address_of(request),
        code=body.code,
    )
    signed_in = service.sign_in(server, credentials)
    if body.cookie:
        set_cookie(response, server.settings, signed_in.token)
    return SignInAnswer(
        token=None if body.cookie else signed_in.token,
        csrf_token=csrf_of(signed_in.token) if body.cookie else None,
        expires_at=signed_in.row.expires_at,
        name=body.name,
        organization=signed_in.organization,
        role=signed_in.row.role,
        second_factor=signed_in.second_factor,
    )


@router.post("/sign-out", status_code=status.HTTP_204_NO_CONTENT, responses=documented(*SIGNED_IN))
def sign_out(server: ServerDep, caller: AnyUser, response: Response) -> None:
    """End the token that this request came with, and its cookie."""
    service.sign_out(server, caller)
    clear_cookie(response, server.settings)


@router.get("/me", responses=documented(*SIGNED_IN))
def show_me(server: ServerDep, caller: AnyUser, request: Request) -> MeAnswer:
    """Show who you are here, and what you may do."""
    token = None if "authorization" in request.headers else token_in_cookie(request, server.settings)
    with server.database.read() as session:
        organization = session.get_one(Organization, caller.organization_id)
        return MeAnswer(
            name=caller.name,
            organization=organization.name,
            role=caller.role,
            permissions=[] if caller.lacks_factor else sorted(caller.permissions),
            second_factor=_factor_state(session, caller),
            csrf_token=csrf_of(token) if token else None,
            projects=names_of_projects(session, caller.grant.in_projects),
        )


@router.post(
    "/me/password", status_code=status.HTTP_204_NO_CONTENT, responses=documented(*SIGNED_IN, *_SIGN_IN)
)
def change_password(server: ServerDep, caller: Reader, body: ChangePasswordBody) -> None:
    """Change your password; all your sign-ins and tokens end, this one too."""
    current, new = body.current.get_secret_value(), body.new.get_secret_value()
    service.change_password(server, caller, current=current, new=new)


@router.get("/tokens", responses=documented(*SIGNED_IN))
def list_tokens(server: ServerDep, caller: Reader, after: After = None) -> Page[TokenAnswer]:
    """List your API tokens, oldest first."""
    limit, cursor = server.settings.max_page, parse_cursor(after)
    with server.database.read() as session:
        rows = tokens_of(session, caller.membership_id, after=cursor, limit=limit + 1)
    items = [_show(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return Page(items=items, next=last and cursor_text(last.created_at, last.id))


@router.post(
    "/tokens",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*SIGNED_IN, TokenLifetimeError, TokenRoleError),
)
def create_token(server: ServerDep, caller: Reader, body: CreateTokenBody) -> CreatedTokenAnswer:
    """Make an API token for a program; it is shown this once. Needs a sign-in: no token makes another."""
    token, row = service.create_token(server, caller, body)
    shown = _show(row)
    return CreatedTokenAnswer(token=token, **shown.model_dump())


@router.delete(
    "/tokens/{token_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, NotFoundError),
)
def revoke_token(server: ServerDep, caller: Reader, token_id: uuid.UUID) -> None:
    """Revoke one of your API tokens, at once."""
    service.revoke_token(server, caller, token_id)


def _factor_state(session: Session, caller: UserCaller) -> FactorState:
    if caller.lacks_factor:
        return FactorState.DEMANDED
    return FactorState.ON if has_factor(session, caller.user_id) else FactorState.OFF


def _show(row: ApiToken) -> TokenAnswer:
    return TokenAnswer(
        id=row.id,
        name=row.name,
        role=row.role,
        scopes=sorted(scopes_of(row.scopes) & PERMISSIONS[row.role]),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
