"""The server's end of a websocket, with limits that the library leaves open."""

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection

from splitlearn.link import WatchedConnection


class GatewayConnection(WatchedConnection, ServerConnection):
    """A connection that is cut when its opening request is too large, or when there are too many.

    Args:
        max_header_bytes: Of the opening request.
        max_sockets: Connections of this server, handshakes included.
        arguments: What the library passes.
    """

    def __init__(self, *arguments: Any, max_header_bytes: int, max_sockets: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._header_bytes_left = max_header_bytes
        self._max_sockets = max_sockets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Cut the connection if it is one too many; called by the server's socket."""
        super().connection_made(transport)
        if len(self.server.handler_tasks) > self._max_sockets:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Cut the connection if its opening request is too large; called by the transport."""
        if self.request is None:
            self._header_bytes_left -= len(data)
            if self._header_bytes_left < 0:
                self.transport.abort()
                return
        super().data_received(data)
