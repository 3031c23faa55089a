"""Signing in by an OpenID provider: a browser goes there, and comes back with a code."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import RedirectResponse

from backend.auth.callers import address_of
from backend.auth.cookies import cookie_name, is_https, set_cookie
from backend.auth.errors import WhichOrganizationError
from backend.auth.service import Entry, open_session
from backend.errors import EVERYWHERE, documented
from backend.federation.service import federation_of
from backend.openid.accounts import Person, admit
from backend.openid.errors import (
    NotAdmittedError,
    OpenIdOffError,
    ProviderAwayError,
    SignInNotBegunError,
    TokenRefusedError,
)
from backend.openid.page import also_as_page
from backend.openid.provider import Provider
from backend.openid.schemas import OpenIdAnswer
from backend.openid.state import LIFE, BegunSignIn, open_sealed
from backend.parties.errors import NonceRefusedError
from backend.parties.nonces import spend_nonce
from backend.server import Server, ServerDep
from backend.settings import Settings

_HOME: Final = "/"
_MAX_ANSWER: Final = 4096
_REDIRECT: Final[dict[int | str, dict[str, Any]]] = {302: {"description": "to the provider"}}
_HOMEWARD: Final[dict[int | str, dict[str, Any]]] = {303: {"description": "signed in, by a cookie"}}

router = APIRouter(prefix="/openid", tags=["auth"])
Text = Annotated[str | None, Query(max_length=_MAX_ANSWER)]


@router.get("", responses=documented(*EVERYWHERE))
def show_openid(server: ServerDep) -> OpenIdAnswer:
    """Tell whether people may sign in by an OpenID provider."""
    return OpenIdAnswer(issuer=server.openid.issuer if server.openid else None)


@router.get(
    "/start",
    status_code=status.HTTP_302_FOUND,
    response_class=Response,
    responses={**also_as_page(documented(*EVERYWHERE, OpenIdOffError, ProviderAwayError)), **_REDIRECT},
)
def start_openid(server: ServerDep) -> Response:
    """Send a browser to the provider; it comes back to the callback."""
    provider = _provider(server)
    begun = BegunSignIn.begin(now=server.now())
    url = provider.authorization_url(state=begun.state, nonce=begun.nonce, challenge=begun.challenge)
    response = RedirectResponse(url, status_code=status.HTTP_302_FOUND)
    # Lax: the provider's page sends the browser back, and a strict cookie would stay behind.
    response.set_cookie(
        _name(server.settings),
        begun.seal(_key(server)),
        max_age=int(LIFE.total_seconds()),
        path="/",
        secure=is_https(server.settings),
        httponly=True,
        samesite="lax",
    )
    return response


@router.get(
    "/callback",
    status_code=status.HTTP_303_SEE_OTHER,
    response_class=Response,
    responses={
        **also_as_page(
            documented(
                *EVERYWHERE,
                OpenIdOffError,
                ProviderAwayError,
                SignInNotBegunError,
                TokenRefusedError,
                NotAdmittedError,
                WhichOrganizationError,
            )
        ),
        **_HOMEWARD,
    },
)
def finish_openid(
    server: ServerDep,
    request: Request,
    *,
    code: Text = None,
    state: Text = None,
    error: Text = None,
    iss: Text = None,
) -> Response:
    """Take the provider's answer, and sign the browser in by a cookie."""
    provider = _provider(server)
    begun = open_sealed(
        request.cookies.get(_name(server.settings)), _key(server), state=state or "", now=server.now()
    )
    _spend(server, begun)
    if error is not None or code is None:
        raise TokenRefusedError(f"the provider vouches for nobody: {(error or 'no code')[:80]!r}")
    if iss is not None and iss != provider.issuer:  # RFC 9207: another provider's answer
        raise TokenRefusedError(f"the answer is of {iss[:200]!r}, not of {provider.issuer}")
    claims = provider.claims_for(code, verifier=begun.verifier, nonce=begun.nonce, now=server.now())
    person = Person.of(claims, server.settings)
    address = address_of(request)
    with server.database.write() as session:
        user = admit(session, server.settings, person, address=address, now=server.now())
        entry = Entry(user, address, proof="openid", by_openid=True)
        signed_in = open_session(session, server, entry, organization=server.settings.openid_organization)
    response = RedirectResponse(_HOME, status_code=status.HTTP_303_SEE_OTHER)
    set_cookie(response, server.settings, signed_in.token)
    response.delete_cookie(
        _name(server.settings), path="/", secure=is_https(server.settings), httponly=True, samesite="lax"
    )
    return response


def _provider(server: Server) -> Provider:
    if server.openid is None:
        raise OpenIdOffError("no OpenID provider is set here")
    return server.openid


def _spend(server: Server, begun: BegunSignIn) -> None:
    """Let no answer be taken twice, whatever becomes of this one."""
    life = int(LIFE.total_seconds())
    try:
        with server.database.write(quietly=True) as session:
            spend_nonce(session, begun.state, now=server.now(), life_seconds=life)
    except NonceRefusedError as error:
        raise SignInNotBegunError("this sign-in was finished before") from error


def _key(server: Server) -> bytes:
    with server.database.read() as session:
        return federation_of(session).nonce_key


def _name(settings: Settings) -> str:
    return f"{cookie_name(settings)}-openid"
