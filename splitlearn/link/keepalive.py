"""Whether a websocket's other end is still there, judged by progress instead of one answer's delay.

The library's own rule, "a pong within so many seconds", takes a slow line for a dead one: a ping waits
behind a frame of 4 MiB, which needs half a minute at 1 Mbit/s, and is not read at all while back-pressure
holds its reader. Here a connection lives as long as bytes move, and dies after a time in which none did.
"""

import asyncio
import contextlib
import logging
import math

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

LIBRARY_LOGGER = logging.getLogger("trunkline.websockets")
"""For the websockets library. Never at DEBUG, where it would show headers, and so tickets."""
LIBRARY_LOGGER.setLevel(logging.WARNING)
_FIRST_PAUSE_SECONDS = 0.5
"""After the first ping; every further pause is twice as long, up to the interval."""


class WatchedConnection(Connection):
    """A connection that is dropped after ``ping_timeout`` seconds without progress.

    Mix in before the library's client or server connection. Progress is a byte received, a change of what
    waits to be written, or that this end itself does not read now because its queue is full: then the
    other end owes nothing.
    """

    _last_progress = 0.0
    _last_unwritten = 0
    _shortest_round_trip = math.inf

    @property
    def round_trip_seconds(self) -> float | None:
        """The shortest of all pings that came back; None before the first.

        One that meets a busy machine takes longer, none less than the way: the first is sent while both ends
        still start.
        """
        if self.latency:
            self._shortest_round_trip = min(self._shortest_round_trip, self.latency)
        return self._shortest_round_trip if self._shortest_round_trip < math.inf else None

    def data_received(self, data: bytes) -> None:
        """Note the progress; called by the transport."""
        self._last_progress = self.loop.time()
        super().data_received(data)

    async def keepalive(self) -> None:
        """Ping every ``ping_interval`` seconds, at first more often; started and cancelled by the library."""
        assert self.ping_interval is not None
        assert self.ping_timeout is not None
        self._last_progress = self.loop.time()
        pause = min(_FIRST_PAUSE_SECONDS, self.ping_interval)
        while not self._is_silent():
            _ = self.round_trip_seconds  # the next ping replaces the last one's
            if not self.transport.get_write_buffer_size():
                # With bytes unwritten a ping would wait behind them, and they are watched already.
                with contextlib.suppress(ConnectionClosed):  # it closes just now, and cancels this
                    await self.ping()
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.ping_interval)
        self.transport.abort()

    def _is_silent(self) -> bool:
        assert self.ping_timeout is not None
        unwritten = self.transport.get_write_buffer_size()
        if unwritten != self._last_unwritten or not self.transport.is_reading():
            self._last_unwritten = unwritten
            self._last_progress = self.loop.time()
        return self.loop.time() - self._last_progress >= self.ping_timeout
