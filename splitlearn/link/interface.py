"""What every transport offers."""

from collections.abc import Awaitable, Callable
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Link(Protocol):
    """One live connection that carries whole frames, in order, both ways."""

    async def send(self, frame: Buffer) -> None:
        """Hand over one frame; returns once there is room for the next.

        The caller must not change the buffer afterwards.

        Raises:
            LinkError: The connection is gone, or the frame is larger than the link allows.
        """

    async def receive(self) -> Buffer:
        """Return the next frame.

        Raises:
            LinkError: The connection is gone.
        """

    async def close(self) -> None:
        """Drop the connection; idempotent. Both ends' pending calls raise LinkError."""


Connect = Callable[[], Awaitable[Link]]
"""Opens a new connection, or raises LinkError."""

Accept = Callable[[Link], Awaitable[None]]
"""Serves one incoming connection until it returns."""
