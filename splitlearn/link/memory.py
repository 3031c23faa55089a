"""Links inside one process: for the simulation and for tests."""

import asyncio
from dataclasses import dataclass, field

from splitlearn.errors import LinkError
from splitlearn.link.interface import Buffer

DEFAULT_MAX_QUEUED_FRAMES = 16


@dataclass(eq=False)
class _Wire:
    """One direction of a pair: a bounded queue that can be cut."""

    max_queued_frames: int
    frames: list[Buffer] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    cut: bool = False

    async def put(self, frame: Buffer) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.cut or len(self.frames) < self.max_queued_frames)
            if self.cut:
                raise LinkError("the memory link is closed; open another")
            self.frames.append(frame)
            self.changed.notify_all()

    async def get(self) -> Buffer:
        async with self.changed:
            await self.changed.wait_for(lambda: self.cut or bool(self.frames))
            if self.cut:
                raise LinkError("the memory link is closed; open another")
            frame = self.frames.pop(0)
            self.changed.notify_all()
            return frame

    async def close(self) -> None:
        async with self.changed:
            self.cut = True
            self.frames.clear()
            self.changed.notify_all()


class MemoryLink:
    """One end of a pair of in-process links.

    Args:
        outgoing: The direction this end writes.
        incoming: The direction this end reads.
        max_frame_bytes: Largest frame that is carried.
    """

    def __init__(self, outgoing: _Wire, incoming: _Wire, *, max_frame_bytes: int | None) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._max_frame_bytes = max_frame_bytes

    async def send(self, frame: Buffer) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        if self._max_frame_bytes is not None and len(frame) > self._max_frame_bytes:
            raise LinkError(f"a frame has {len(frame)} bytes, this link carries {self._max_frame_bytes}")
        await self._outgoing.put(frame)

    async def receive(self) -> Buffer:
        """See :class:`~splitlearn.link.interface.Link`."""
        return await self._incoming.get()

    async def close(self) -> None:
        """See :class:`~splitlearn.link.interface.Link`."""
        await self._outgoing.close()
        await self._incoming.close()


def memory_pair(
    *, max_queued_frames: int = DEFAULT_MAX_QUEUED_FRAMES, max_frame_bytes: int | None = None
) -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a new in-process connection.

    Args:
        max_queued_frames: Frames in flight per direction before ``send`` waits.
        max_frame_bytes: Largest frame that is carried; None for any.
    """
    one, other = _Wire(max_queued_frames), _Wire(max_queued_frames)
    first = MemoryLink(one, other, max_frame_bytes=max_frame_bytes)
    return first, MemoryLink(other, one, max_frame_bytes=max_frame_bytes)


class MemorySwitchboard:
    """Lets one party dial and the other answer, as often as a connection is lost.

    Stands where the gateway stands between processes: ``dial`` is the silo's way to a new link,
    ``answer`` the trunk's.
    """

    def __init__(self, *, max_queued_frames: int = DEFAULT_MAX_QUEUED_FRAMES) -> None:
        self._max_queued_frames = max_queued_frames
        self._ringing: asyncio.Queue[MemoryLink] = asyncio.Queue()

    async def dial(self) -> MemoryLink:
        """Open a connection; the other party gets its end from :meth:`answer`."""
        here, there = memory_pair(max_queued_frames=self._max_queued_frames)
        await self._ringing.put(there)
        return here

    async def answer(self) -> MemoryLink:
        """Wait for the other party to dial; of several waiting calls only the newest counts."""
        link = await self._ringing.get()
        while not self._ringing.empty():
            await link.close()
            link = self._ringing.get_nowait()
        return link
