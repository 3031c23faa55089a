"""The log: one line per event with fields, and tracebacks without the values of local variables."""

import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Literal

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.app_prefix import API_PREFIX
from backend.errors import InternalError

LogFormat = Literal["console", "json"]
Observe = Callable[[str, str, int, float], None]
"""Told of each answer: method, route template, status and seconds."""

REQUEST_ID_HEADER = "X-Request-Id"
_GOOD_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OTHER = "other"
"""Stands for what anybody may make up, so that nobody makes up time series."""
_log = structlog.get_logger("backend.request")


def configure_logging(log_format: LogFormat) -> None:
    """Write events to standard error, for people or as JSON lines.

    Structlog's own default would show local variables in tracebacks, and with them tokens.
    """
    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
        logger_factory=lambda *_args: structlog.PrintLogger(sys.stderr),
    )


class RequestLog:
    """ASGI middleware: an id for each request, in the log and in the header ``X-Request-Id``.

    An id that the caller gives in that header is taken over, where it is 8 to 64 letters, digits, ``-`` and
    ``_``: a proxy's log and ours can then be read side by side.

    What no handler has caught is a bug of ours: it is logged here, under that id, and answered without
    a detail. (Starlette's own place for that lies outside of all middleware, where no id is known.)

    Args:
        app: The application inside.
        observe: Told of each answer; called in the event loop, must not block.
    """

    def __init__(self, app: ASGIApp, *, observe: Observe | None = None) -> None:
        self._app, self._observe = app, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and log it; its query and body are not written down."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, start, status = _request_id(scope), time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:  # the answer has begun: only breaking it off says that it is not whole
                    raise
                error = InternalError(f"the server failed to answer request {request_id}")
                response = JSONResponse(error.body().model_dump(), status_code=error.status)
                await response(scope, receive, send_with_id)
            finally:
                seconds = time.monotonic() - start
                milliseconds = round(seconds * 1000)
                _log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds
                )
                if self._observe is not None:
                    method = scope["method"] if scope["method"] in _METHODS else _OTHER
                    self._observe(method, _template(scope), status, seconds)


def current_request_id() -> str:
    """Return the id of the request that is served in this context; empty outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def _template(scope: Scope) -> str:
    """Return the route with its parameters' names in place of their values."""
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return _OTHER
    # The route of an included router may name only its own part of the path.
    is_cut = scope["path"].startswith(API_PREFIX) and not path.startswith(API_PREFIX)
    return API_PREFIX + path if is_cut else path
