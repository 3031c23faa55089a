"""The gateway as a server: listening, health, the feed's watch, and an orderly end."""

import asyncio
import contextlib
import functools
import ssl
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from backend.clock import Clock, system_clock
from backend.gateway.connection import GatewayConnection
from backend.gateway.counters import Counters
from backend.gateway.hall import Hall
from backend.gateway.relay import Relay
from backend.gateway.settings import GatewaySettings
from backend.gateway.standings import Feed, FeedError, Standings
from backend.gateway.tickets import KeyVerifier, TicketVerifier
from splitlearn.errors import LinkError, StorageError
from splitlearn.link import LIBRARY_LOGGER
from splitlearn.watching import METRICS_TYPE, may_read

RELAY_PATH = "/relay"
MAX_QUEUED_FRAMES = (1, 0)
"""Reading pauses with more than one whole frame unread, and goes on when all are taken."""
_END_SECONDS = 0.5
_MISSED_ANSWERS = 3
"""So many questions in a row without an answer make the gateway unready; it still relays."""


class Gateway:
    """A running gateway; an async context manager.

    Args:
        settings: Limits and where to listen.
        feed: Tells standings; None for those that tickets show.
        verifier: Judges tickets; by default with the settings' public key.
        now: The clock for tickets.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        feed: Feed | None = None,
        verifier: TicketVerifier | None = None,
        now: Clock = system_clock,
    ) -> None:
        self._settings = settings
        self._feed = feed
        self.counters = Counters()
        self.hall = Hall(
            max_guests=settings.max_connections,
            max_per_party=settings.max_connections_per_party,
            standings=Standings(),
        )
        self._relay = Relay(
            self.hall,
            verifier=verifier or KeyVerifier(settings.public_key),
            counters=self.counters,
            now=now,
            pairing_seconds=settings.pairing_seconds,
            close_seconds=settings.close_seconds,
        )
        self._missed_answers = 0
        self._server: Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger("gateway")

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            LinkError: The address cannot be listened on.
            StorageError: The files for TLS cannot be used.
        """
        settings = self._settings
        tls = _tls(settings)
        try:
            self._server = await serve(
                self._relay.serve,
                settings.host,
                settings.port,
                process_request=self._answer_http,
                create_connection=cast("Any", self._connection_factory()),
                compression=None,
                server_header=None,
                max_size=settings.max_frame_bytes,
                max_queue=MAX_QUEUED_FRAMES,
                open_timeout=settings.handshake_seconds,
                close_timeout=settings.close_seconds,
                ping_interval=settings.ping_seconds,
                ping_timeout=settings.silence_seconds,
                logger=LIBRARY_LOGGER,
                ssl=tls,
            )
        except OSError as error:
            raise LinkError(
                f"the gateway cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "end what uses that port, or set TRUNKLINE_GATEWAY_PORT"
            ) from error
        self._watch = asyncio.create_task(self._watch_standings())
        self._log.info("gateway_listening", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, tell every connection that the gateway goes away, and wait for their ends."""
        assert self._server is not None
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.wait({self._watch})
        self.hall.close()
        # Open connections are closed by their handlers, each with its reason and within close_seconds.
        self._server.close(close_connections=False)
        with contextlib.suppress(TimeoutError):  # of those still in their opening handshake
            await asyncio.wait_for(self._server.wait_closed(), self._settings.close_seconds + _END_SECONDS)
        self._log.info("gateway_stopped")

    @property
    def url(self) -> str:
        """The address that ``connect_gateway`` reaches this gateway at."""
        assert self._server is not None, "the gateway is not started"
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        scheme = "ws" if self._settings.tls_key_file is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{RELAY_PATH}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; a failure of the watch, which would leave revoked pairs, is raised."""
        assert self._watch is not None, "the gateway is not started"
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({waiting, self._watch}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._watch.done():
            self._watch.result()

    def _connection_factory(self) -> "functools.partial[GatewayConnection]":
        settings = self._settings
        return functools.partial(
            GatewayConnection,
            max_header_bytes=settings.max_header_bytes,
            max_sockets=settings.max_connections + settings.max_handshakes,
        )

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no relayed connection; None lets the websocket handshake go on."""
        match request.path.partition("?")[0]:
            case path if path == RELAY_PATH:
                return None
            case "/healthz":
                return connection.respond(HTTPStatus.OK, "ok\n")
            case "/readyz":
                return self._readiness(connection)
            case "/metrics":
                return self._metrics(connection, request)
            case _:
                return connection.respond(HTTPStatus.NOT_FOUND, f"there is only {RELAY_PATH}\n")

    def _metrics(self, connection: ServerConnection, request: Request) -> Response:
        secret = self._settings.metrics_token
        token = None if secret is None else secret.get_secret_value()
        peer = connection.remote_address
        # A name that comes twice is read as its last value: no token is put together of several.
        headers = dict(request.headers.raw_items())
        if not may_read(token=token, peer=peer[0] if peer else None, headers=headers):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "metrics are for this machine, or for whoever shows metrics_token\n"
            )
        text = self.counters.to_text(
            connections=self.hall.num_guests,
            sessions=self.hall.num_sessions,
            is_feed_answering=self._missed_answers == 0,
        )
        response = connection.respond(HTTPStatus.OK, text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = METRICS_TYPE
        return response

    def _readiness(self, connection: ServerConnection) -> Response:
        if self._missed_answers >= _MISSED_ANSWERS:
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, "the control plane does not answer about standings\n"
            )
        return connection.respond(HTTPStatus.OK, "ready\n")

    async def _watch_standings(self) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        while True:
            if self._feed is not None:
                await self._ask(self._feed)  # at once, too: the answer tells by what time tickets end
            await asyncio.sleep(settings.standings_seconds)
            self.hall.end_idle(since=loop.time() - settings.max_idle_seconds)

    async def _ask(self, feed: Feed) -> None:
        try:
            self.hall.learn(await feed.standings(self.hall.seats()))
            self._missed_answers = 0
        except FeedError as error:
            self._missed_answers += 1
            self.counters.feed_failures += 1
            self._log.warning("standings_unknown", error=str(error), in_a_row=self._missed_answers)


def _tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    if settings.tls_certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        raise StorageError(
            f"the gateway cannot use {settings.tls_certificate_file} with {settings.tls_key_file}: "
            f"{error.strerror or error}; give a certificate chain and its key, both PEM"
        ) from error
    return context
