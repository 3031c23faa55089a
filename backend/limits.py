"""The limit on a request's body, refused in the one form of all errors."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import TooLargeError


class BodyLimit:
    """ASGI middleware that refuses a body by its declared length, or as soon as it grows too long.

    Args:
        app: The application inside.
        max_bytes: Largest body.
        uploads: Beginning of the paths that stream to the disk, and count for themselves.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, uploads: str) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (scope["method"] == "PUT" and scope["path"].startswith(self._uploads)):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            await self._refusal()(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:  # sent in chunks, without a length
                raise HTTPException(TooLargeError.status)
            return message

        return receive_within_limit

    def _refusal(self) -> JSONResponse:
        error = TooLargeError(f"the body is larger than {self._max_bytes} bytes")
        return JSONResponse(error.body().model_dump(), status_code=error.status)
