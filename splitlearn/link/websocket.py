"""Links over websockets (RFC 6455), by the ``websockets`` library.

One binary websocket message is one frame. Compression is off: sealed frames do not compress, and
compressing before sealing would leak through sizes.
"""

import contextlib
import ssl
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException

from splitlearn.errors import LinkError
from splitlearn.link.interface import Accept, Buffer
from splitlearn.loopback import proxy_for
from splitlearn.wire import Limits

_CONNECTION_SETTINGS: dict[str, Any] = {"ping_interval": 20.0, "ping_timeout": 20.0, "close_timeout": 2.0}
_MAX_QUEUED_FRAMES = 16
_MESSAGE_TOO_BIG = 1009


class WebsocketLink:
    """A link over an open websocket connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def round_trip_seconds(self) -> float | None:
        """Of the last ping that came back; None before the first."""
        return self._connection.latency or None

    async def send(self, frame: Buffer) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise self._explain(error) from error

    async def receive(self) -> Buffer:
        """See :class:`~splitlearn.link.interface.Link`."""
        try:
            frame = await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise self._explain(error) from error
        assert isinstance(frame, bytes)
        return frame

    async def close(self) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        await self._connection.close()

    def _explain(self, error: ConnectionClosed) -> LinkError:
        return LinkError(_reason(error))


def _reason(error: ConnectionClosed) -> str:
    close = error.rcvd or error.sent
    if close is None:
        return "the websocket connection was lost without a closing word; open another"
    if close.code == _MESSAGE_TOO_BIG:
        return f"the websocket was closed because a frame was larger than its limit: {close.reason}"
    return f"the websocket was closed with code {close.code}; open another"


def trust_settings(ssl_context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the library's argument for trust in ``wss``; without it, the system's. It takes no None."""
    return {} if ssl_context is None else {"ssl": ssl_context}


async def connect_websocket(
    url: str,
    *,
    limits: Limits | None = None,
    timeout_seconds: float = 10.0,
    ssl_context: ssl.SSLContext | None = None,
) -> WebsocketLink:
    """Open a link to a listener.

    Args:
        url: ``ws://`` or ``wss://`` address.
        limits: Its ``max_frame_bytes`` is the largest frame accepted.
        timeout_seconds: Longest time for TCP, TLS and the opening handshake together.
        ssl_context: Trust settings for ``wss``; None for the system's.

    Raises:
        LinkError: Nobody answers there, or not as a websocket.
    """
    limits = limits or Limits()
    try:
        connection = await connect(
            url,
            compression=None,
            max_size=limits.max_frame_bytes,
            max_queue=_MAX_QUEUED_FRAMES,
            open_timeout=timeout_seconds,
            proxy=proxy_for(url),
            **trust_settings(ssl_context),
            **_CONNECTION_SETTINGS,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, WebSocketException) as error:
        raise LinkError(f"no websocket at {url}: {error}; check the address and that it is up") from error
    return WebsocketLink(connection)


class WebsocketListener:
    """Accepts websocket connections and hands each, as a link, to ``accept``.

    Use as an async context manager; leaving it closes every connection.

    Args:
        accept: Serves one connection until it returns; the connection is then closed.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, see :attr:`url`.
        limits: Its ``max_frame_bytes`` is the largest frame accepted.
    """

    def __init__(
        self, accept: Accept, *, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None
    ) -> None:
        self._accept = accept
        self._host = host
        self._port = port
        self._limits = limits or Limits()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            LinkError: The address cannot be listened on.
        """
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                compression=None,
                max_size=self._limits.max_frame_bytes,
                max_queue=_MAX_QUEUED_FRAMES,
                **_CONNECTION_SETTINGS,
            )
        except OSError as error:
            raise LinkError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}; choose another port"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and drop every connection."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The address that ``connect_websocket`` reaches this listener at."""
        assert self._server is not None, "the listener is not started"
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"ws://{host}:{port}/"

    async def _serve(self, connection: ServerConnection) -> None:
        link = WebsocketLink(connection)
        # A connection that breaks is the peer's to open again: there is nobody here to tell.
        with contextlib.suppress(LinkError):
            await self._accept(link)
        await link.close()
