"""The gateway as a process of its own: ``python -m backend.gateway``."""

import asyncio
import contextlib
import logging
import resource
import signal
import sys

import structlog
from pydantic import ValidationError
from structlog.tracebacks import ExceptionDictTransformer
from websockets.exceptions import WebSocketException

from backend.gateway.app import Gateway
from backend.gateway.http_feed import HttpFeed
from backend.gateway.settings import GatewaySettings
from backend.gateway.told_clock import ToldClock
from splitlearn.errors import SpecError, TrunklineError
from splitlearn.link import LIBRARY_LOGGER
from splitlearn.setting_errors import setting_sentences

_OTHER_FILES = 64


def main() -> int:
    """Read the settings from the environment, serve until SIGTERM or SIGINT, and return the exit code.

    0 after a signal; 2 for a wrong setting; 10 when the port is in use (``docs/exit-codes.md``).
    """
    configure_logs()
    structlog.get_logger("gateway").info("gateway_starting")
    try:
        asyncio.run(run_gateway(read_settings()))
    except TrunklineError as error:
        sys.stderr.write(f"trunkline: {error.message}\n")
        return error.exit_code
    return 0


def read_settings() -> GatewaySettings:
    """Return the settings of the environment.

    Raises:
        SpecError: One is missing or wrong; the message names it.
    """
    try:
        return GatewaySettings()
    except ValidationError as error:
        sentence = setting_sentences(error, GatewaySettings)[0]
        if error.errors()[0]["type"] == "missing":
            sentence += (
                "; docs/gateway.md lists the settings (trunkline gateway --control-plane URL asks the "
                "control plane for its key)"
            )
        raise SpecError(sentence) from error


async def run_gateway(settings: GatewaySettings) -> None:
    """Serve until a signal asks for the end.

    Raises:
        LinkError: The address cannot be listened on.
    """
    allow_files(settings.max_connections + settings.max_handshakes + _OTHER_FILES)
    stop = asyncio.Event()
    _stop_at_signals(stop)
    async with contextlib.AsyncExitStack() as stack:
        feed, clock = None, ToldClock()
        if settings.standings_url:
            secret = settings.standings_token
            token = secret.get_secret_value() if secret is not None else None
            feed = await stack.enter_async_context(
                HttpFeed(
                    settings.standings_url,
                    token=token,
                    own_url=settings.own_url or None,
                    on_time=clock.tell,
                )
            )
        else:
            structlog.get_logger("gateway").warning("standings_from_tickets_only", setting="standings_url")
        gateway = await stack.enter_async_context(Gateway(settings, feed=feed, now=clock))
        await gateway.run(stop)


def _stop_at_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it ends already
            loop.call_soon_threadsafe(stop.set)

    # Not the loop's own handlers: they end with it, and a second SIGTERM would then kill an orderly end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def allow_files(number: int) -> None:
    """Raise this process's limit on open files, of which every connection is one, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def configure_logs() -> None:
    """Write every event as one line of JSON to standard error, the library's too; no local variables."""
    # Local variables of a traceback would be frames and tickets.
    tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    LIBRARY_LOGGER.addHandler(_LibraryEvents())


class _LibraryEvents(logging.Handler):
    """Passes on what the websockets library notices; the traceback only if it is not a peer's doing."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger("gateway")
        error = record.exc_info[1] if record.exc_info else None
        if error is None or isinstance(error, WebSocketException | EOFError):
            log.info("websocket_refused", what=record.getMessage(), error=type(error).__name__)
        else:
            log.error("websocket_failed", what=record.getMessage(), exc_info=error)
