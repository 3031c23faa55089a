"""What a browser is told about every answer: run nothing foreign, be framed by nobody, guess no type."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.app_prefix import API_PREFIX

DATA: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For answers of the API, which are no pages."""

PAGES: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For the dashboard: its own files and its own API, nothing written into the page itself."""

DOCUMENTATION: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https://fastapi.tiangolo.com; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For ``/docs`` alone, a page that FastAPI writes: it loads its viewer from where FastAPI keeps it."""

_DOCUMENTATION_PATH: Final = "/docs"
_EVERYWHERE: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # what frame-ancestors says, for browsers from before it
    "Referrer-Policy": "no-referrer",  # addresses hold ids of jobs
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_HTTPS_FOR_A_YEAR: Final = "max-age=31536000"


class SecurityHeaders:
    """ASGI middleware that adds the headers; what an answer says itself stays.

    Args:
        app: The application inside.
        is_https: Browsers reach this server by https alone, and are told to remember it.
    """

    def __init__(self, app: ASGIApp, *, is_https: bool) -> None:
        self._app = app
        self._is_https = is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message), path)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _add(self, headers: MutableHeaders, path: str) -> None:
        for name, value in _EVERYWHERE.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", _policy(path))
        if self._is_https:
            headers.setdefault("Strict-Transport-Security", _HTTPS_FOR_A_YEAR)
        if path.startswith(f"{API_PREFIX}/"):
            headers.setdefault("Cache-Control", "no-store")  # tokens and passwords are shown once


def _policy(path: str) -> str:
    if path == _DOCUMENTATION_PATH:
        return DOCUMENTATION
    return DATA if path.startswith(f"{API_PREFIX}/") else PAGES
