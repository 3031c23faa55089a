"""Server-sent events (WHATWG HTML, section 9.2): rows as they come, resumable by ``Last-Event-ID``."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

from backend.db.models import Event
from backend.events.bus import Bus

HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 2.0
PAGE = 100
"""Events read at once: what one connection holds in memory."""

Read = Callable[[int], Sequence[Event]]
"""Reads the next events after a number."""

IsOver = Callable[[], bool]
"""Tells whether nothing more is to be expected."""


def never() -> bool:
    """Return that there is always more to come."""
    return False


async def stream(
    read: Read, bus: Bus, *, after: int, follow: bool = True, is_over: IsOver = never
) -> AsyncIterator[str]:
    """Yield events in the format of the stream; a comment now and then shows that it lives.

    Args:
        read: Reads the next ones.
        bus: Wakes us.
        after: Only events after this number.
        follow: Go on; otherwise end with the newest.
        is_over: Asked where there is no newer one; the stream ends if so.
    """
    listener = bus.task_listener()
    clock = asyncio.get_running_loop().time
    spoken_at = clock()
    try:
        yield ": begin\n\n"
        while not bus.is_closed:
            listener.clear()
            is_last = not follow or await asyncio.to_thread(
                is_over
            )  # asked first: what it ended with is read then
            rows = await asyncio.to_thread(read, after)
            for row in rows:
                after = row.number
                yield _format(row)
            if rows:
                spoken_at = clock()
                continue
            if is_last:
                return
            if clock() - spoken_at >= HEARTBEAT_SECONDS:
                spoken_at = clock()
                yield ": alive\n\n"
            await _wait(listener)
    finally:
        bus.forget(listener)


async def _wait(listener: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await listener.wait()
    except TimeoutError:
        return  # another process may have written, and its word may have been lost


def _format(row: Event) -> str:
    content = {
        "number": row.number,
        "kind": row.kind,
        "job": str(row.job_id) if row.job_id else None,
        "at": row.happened_at.isoformat(),
        **row.body,
    }
    return f"id: {row.number}\nevent: {row.kind}\ndata: {json.dumps(content)}\n\n"
