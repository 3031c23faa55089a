"""The log: one line per event with fields, and tracebacks without the values of local variables."""

import sys
import time
import uuid
from typing import Literal

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import InternalError

LogFormat = Literal["console", "json"]
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

    What no handler has caught is a bug of ours: it is logged here, under that id, and answered without
    a detail. (Starlette's own place for that lies outside of all middleware, where no id is known.)

    Args:
        app: The application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and log it; its query and body are not written down."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, start, status = uuid.uuid4().hex[:16], time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
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
                milliseconds = round((time.monotonic() - start) * 1000)
                _log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds
                )
