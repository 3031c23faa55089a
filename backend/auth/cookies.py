"""Sign-ins of browsers: the token in a cookie that no script can read, and a word against forged requests.

A browser sends the cookie with whatever any page makes it send; only our own page can read answers, and so
knows the word that has to stand in a header of every request that changes something (OWASP's synchronizer
token, derived from the session so that nothing more has to be stored).
"""

import hashlib
import hmac
from typing import Final

from fastapi import Request, Response

from backend.errors import CrossSiteError
from backend.settings import Settings

CSRF_HEADER: Final = "X-CSRF-Token"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CSRF: Final = b"trunkline/csrf/v1\0"


def csrf_of(token: str) -> str:
    """Return the word that goes with a session's token; it tells nothing about the token."""
    return hashlib.sha256(_CSRF + token.encode()).hexdigest()


def set_cookie(response: Response, settings: Settings, token: str) -> None:
    """Give a browser its token."""
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=settings.session_hours * 3600,  # a span: the browser's clock may be wrong
        path="/",
        secure=is_https(settings),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(response: Response, settings: Settings) -> None:
    """Take it back."""
    response.delete_cookie(
        cookie_name(settings), path="/", secure=is_https(settings), httponly=True, samesite="strict"
    )


def token_in_cookie(request: Request, settings: Settings) -> str | None:
    """Return the token that a browser sent, or None.

    Raises:
        CrossSiteError: The request changes something, and does not show that our own page made it.
    """
    token = request.cookies.get(cookie_name(settings))
    if token is None or request.method in _READING:
        return token
    shown = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(shown.encode(), csrf_of(token).encode()):
        raise CrossSiteError(
            f"a request with the cookie of a sign-in needs the header {CSRF_HEADER} to change something"
        )
    return token


def cookie_name(settings: Settings) -> str:
    """Return the session cookie's name."""
    # The prefix makes browsers refuse the cookie from any other host, and over http.
    return "__Host-trunkline" if is_https(settings) else "trunkline"


def is_https(settings: Settings) -> bool:
    """Tell whether browsers reach this server by https."""
    return settings.audience.startswith("https://")
