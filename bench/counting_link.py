"""A link that counts the bytes its frames take on the socket."""

from splitlearn.link import Link
from splitlearn.link.interface import Buffer

_SHORT_BYTES = 125
_MEDIUM_BYTES = 0xFFFF
_MASK_BYTES = 4


def websocket_bytes(payload_bytes: int, *, masked: bool) -> int:
    """Return the size on the socket of one unfragmented websocket message (RFC 6455, section 5.2).

    Args:
        payload_bytes: Size of the message.
        masked: Whether a client sends it.
    """
    extended = 0 if payload_bytes <= _SHORT_BYTES else 2 if payload_bytes <= _MEDIUM_BYTES else 8
    return 2 + extended + (_MASK_BYTES if masked else 0) + payload_bytes


class CountingLink:
    """The client's end of a websocket link, with a count of both directions.

    Args:
        link: What carries the frames.

    Attributes:
        socket_bytes: Bytes of all messages sent and received so far, websocket headers included.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.socket_bytes = 0

    async def send(self, frame: Buffer) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        self.socket_bytes += websocket_bytes(len(frame), masked=True)
        await self._link.send(frame)

    async def receive(self) -> Buffer:
        """See :class:`~splitlearn.link.interface.Link`."""
        frame = await self._link.receive()
        self.socket_bytes += websocket_bytes(len(frame), masked=False)
        return frame

    async def close(self) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        await self._link.close()
