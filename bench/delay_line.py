"""A line between two places: frames come out some time after they went in, in order.

Unlike a sleep before each frame it delays without narrowing: what is put in one after another comes out one
after another, each as late as the first. Wrap the silo's end alone, and both directions are delayed.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from splitlearn.errors import LinkError
from splitlearn.link import Connect, Link
from splitlearn.link.interface import Buffer
from splitlearn.simulation.federation import Lines

DEFAULT_MAX_FRAMES = 64


class _Way:
    """One direction: what is put in comes out ``delay_seconds`` later."""

    def __init__(self, *, delay_seconds: float, max_frames: int) -> None:
        self._delay_seconds, self._max_frames = delay_seconds, max_frames
        self._frames: deque[tuple[float, Buffer]] = deque()
        self._changed = asyncio.Condition()
        self._broken: LinkError | None = None

    async def put(self, frame: Buffer) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._broken is not None or len(self._frames) < self._max_frames
            )
            if self._broken is not None:
                raise self._broken
            due = asyncio.get_running_loop().time() + self._delay_seconds
            self._frames.append((due, frame))
            self._changed.notify_all()

    async def get(self) -> Buffer:
        async with self._changed:
            await self._changed.wait_for(lambda: self._broken is not None or bool(self._frames))
            if self._broken is not None:
                raise self._broken
            due = self._frames[0][0]
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        async with self._changed:
            if self._broken is not None:
                raise self._broken
            _, frame = self._frames.popleft()  # still the first: one reader alone takes from a way
            self._changed.notify_all()
            return frame

    async def break_(self, error: LinkError) -> None:
        async with self._changed:
            self._broken = self._broken or error
            self._frames.clear()
            self._changed.notify_all()


class DelayedLink:
    """One end of a link whose frames are late in both directions; made inside a running event loop.

    Args:
        link: What carries the frames.
        out_seconds: Delay of what this end sends.
        in_seconds: Delay of what it receives.
        max_frames: Under way in each direction before whoever sends has to wait.
    """

    def __init__(
        self, link: Link, *, out_seconds: float, in_seconds: float, max_frames: int = DEFAULT_MAX_FRAMES
    ) -> None:
        self._link = link
        self._out = _Way(delay_seconds=out_seconds, max_frames=max_frames)
        self._in = _Way(delay_seconds=in_seconds, max_frames=max_frames)
        self._carriers = [
            asyncio.create_task(self._run(self._send())),
            asyncio.create_task(self._run(self._receive())),
        ]

    async def send(self, frame: Buffer) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        await self._out.put(frame)

    async def receive(self) -> Buffer:
        """See :class:`~splitlearn.link.interface.Link`."""
        return await self._in.get()

    async def close(self) -> None:
        """See :class:`~splitlearn.link.interface.Link`. What is under way is lost, as on a broken line."""
        await self._break(LinkError("the delayed line is closed; open another"))
        for carrier in self._carriers:
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
        await self._link.close()

    async def _send(self) -> None:
        while True:
            await self._link.send(await self._out.get())

    async def _receive(self) -> None:
        while True:
            await self._in.put(await self._link.receive())

    async def _run(self, carrying: Coroutine[Any, Any, None]) -> None:
        try:
            await carrying
        except LinkError as error:
            await self._break(error)

    async def _break(self, error: LinkError) -> None:
        for way in (self._out, self._in):
            await way.break_(error)


def delayed(connect: Connect, *, round_trip_seconds: float, max_frames: int = DEFAULT_MAX_FRAMES) -> Connect:
    """Return how to open the same connections with a delay, half of a round trip in either direction."""
    half = round_trip_seconds / 2

    async def open_delayed() -> Link:
        link = await connect()
        return DelayedLink(link, out_seconds=half, in_seconds=half, max_frames=max_frames)

    return open_delayed


class DelayedLines(Lines):
    """The lines of a simulated federation, each with a round trip.

    Args:
        names: Silos that will dial.
        round_trip_seconds: Between each silo and the worker.
    """

    def __init__(self, names: Sequence[str], *, round_trip_seconds: float) -> None:
        super().__init__(names)
        self._round_trip_seconds = round_trip_seconds

    def dial(self, name: str) -> Connect:
        """See :class:`~splitlearn.simulation.federation.Lines`."""
        return delayed(super().dial(name), round_trip_seconds=self._round_trip_seconds)
