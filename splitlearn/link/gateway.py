"""Links through a gateway, which pairs a silo's connection with its worker's and relays."""

import ssl

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException

from splitlearn.errors import LinkError
from splitlearn.link.closing import CloseReason, GatewayClosedError
from splitlearn.link.interface import Buffer
from splitlearn.link.keepalive import LIBRARY_LOGGER, WatchedConnection
from splitlearn.link.websocket import WebsocketLink, trust_settings
from splitlearn.loopback import proxy_for
from splitlearn.wire import Limits

PAIRED = "paired"
"""The text message that a gateway sends once both sides are there; every other message is a frame."""

_MAX_QUEUED_FRAMES = (1, 0)
"""Reading pauses with more than one whole frame unread, and goes on when all are taken."""


class _GatewayConnection(WatchedConnection, ClientConnection):
    pass


class GatewayLink(WebsocketLink):
    """A link to the party on the other side of a gateway; made by :func:`connect_gateway`."""

    def __init__(self, connection: "_GatewayConnection", *, max_frame_bytes: int) -> None:
        super().__init__(connection)
        self._watched = connection
        self._max_frame_bytes = max_frame_bytes

    @property
    def round_trip_seconds(self) -> float | None:
        """To the gateway and back: the shortest ping of this connection; None before the first."""
        return self._watched.round_trip_seconds

    async def send(self, frame: Buffer) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        if len(frame) > self._max_frame_bytes:
            raise LinkError(
                f"a frame has {len(frame)} bytes, this link carries {self._max_frame_bytes} (max_frame_bytes)"
            )
        await super().send(frame)

    def _explain(self, error: ConnectionClosed) -> LinkError:
        return _explain(error) or super()._explain(error)


async def connect_gateway(
    url: str,
    *,
    ticket: str,
    limits: Limits | None = None,
    timeout_seconds: float = 10.0,
    ping_seconds: float = 15.0,
    silence_seconds: float = 60.0,
    ssl_context: ssl.SSLContext | None = None,
) -> GatewayLink:
    """Open a link to the other side of a conversation, through a gateway.

    Returns when the other side is there too; the gateway bounds that wait (``PEER_ABSENT``).

    Args:
        url: The gateway's ``ws://`` or ``wss://`` address. Use ``wss`` beyond one machine: what is relayed
            is sealed, the ticket is not.
        ticket: As the control plane gave it for this conversation and side; sent in a header, never in
            the address, which proxies log.
        limits: Its ``max_frame_bytes`` is the largest frame sent or accepted.
        timeout_seconds: Longest time for TCP, TLS and the opening handshake together.
        ping_seconds: Time between two signs of life.
        silence_seconds: Without any progress for so long the connection is dropped.
        ssl_context: Trust settings for ``wss``; None for the system's.

    Raises:
        GatewayClosedError: The gateway refuses, and says why; see its ``reason``.
        LinkError: Nobody answers there, or not as a gateway.
    """
    limits = limits or Limits()
    try:
        connection = await connect(
            url,
            additional_headers={"Authorization": f"Bearer {ticket}"},
            create_connection=_GatewayConnection,
            compression=None,
            max_size=limits.max_frame_bytes,
            max_queue=_MAX_QUEUED_FRAMES,
            open_timeout=timeout_seconds,
            proxy=proxy_for(url),
            close_timeout=2.0,
            ping_interval=ping_seconds,
            ping_timeout=silence_seconds,
            logger=LIBRARY_LOGGER,
            **trust_settings(ssl_context),
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, WebSocketException) as error:
        raise LinkError(f"no gateway at {url}: {error}; check the address and that it is up") from error
    assert isinstance(connection, _GatewayConnection)
    await _await_pairing(connection, url)
    return GatewayLink(connection, max_frame_bytes=limits.max_frame_bytes)


async def _await_pairing(connection: ClientConnection, url: str) -> None:
    try:
        word = await connection.recv()
    except ConnectionClosed as error:
        lost = LinkError(f"the gateway at {url} was lost before the other side came; connect again")
        raise _explain(error) or lost from error
    except BaseException:
        connection.transport.abort()  # cancelled: leave nothing open
        raise
    if word != PAIRED:
        connection.transport.abort()
        raise LinkError(f"{url} answers as a websocket, but not as a gateway; check the address")


def _explain(error: ConnectionClosed) -> GatewayClosedError | None:
    """Return the gateway's own reason, if it gave one; what this end sent first is none."""
    if error.rcvd is None or not error.rcvd_then_sent:
        return None
    reason = CloseReason.of(error.rcvd.code)
    return GatewayClosedError(reason) if reason is not None else None
