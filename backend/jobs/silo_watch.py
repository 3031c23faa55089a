"""Lets agents wait for news of their jobs: one look at the database for all who wait, not one for each."""

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from backend.db.absence import log_failed_look
from backend.jobs.repository import silo_fingerprints
from backend.server import Server

_LOOK_SECONDS = 1.0  # another process may have written: the bus need not know
_SHORTEST_PAUSE_SECONDS = 0.2
_log = structlog.get_logger("backend.silo_watch")


class SiloWatch:
    """Wakes those who wait for a silo when something that its agent is told may have changed.

    A hint, not a message: who is woken looks, and everybody looks at least once after beginning to wait.
    Looks are made only while somebody waits, in the loop of who began.

    Args:
        world: Returns the application's world: its database is the truth, its bus wakes us.
    """

    def __init__(self, world: Callable[[], Server]) -> None:
        self._world = world
        self._waiting: defaultdict[uuid.UUID, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the process stops, and nobody should wait any longer."""
        return self._world().bus.is_closed

    @asynccontextmanager
    async def listening(self, silo_id: uuid.UUID) -> AsyncIterator[asyncio.Event]:
        """Give out an event that is set when there may be news; whoever looks clears it first."""
        woken = asyncio.Event()
        self._waiting[silo_id].add(woken)
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="silo watch")
        try:
            yield woken
        finally:
            self._forget(silo_id, woken)

    def _forget(self, silo_id: uuid.UUID, woken: asyncio.Event) -> None:
        self._waiting[silo_id].discard(woken)
        if not self._waiting[silo_id]:
            del self._waiting[silo_id]
        if not self._waiting and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        bus = self._world().bus
        changed = bus.task_listener()
        known: Mapping[uuid.UUID, object] = {}
        try:
            while True:
                changed.clear()
                known = await self._look(known)
                if self.is_closed:
                    self._wake(list(self._waiting))
                await asyncio.sleep(_SHORTEST_PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS - _SHORTEST_PAUSE_SECONDS):
                        await changed.wait()
        finally:
            bus.forget(changed)

    async def _look(self, known: Mapping[uuid.UUID, object]) -> Mapping[uuid.UUID, object]:
        try:
            found = await asyncio.to_thread(self._read, list(self._waiting))
        except Exception as error:  # noqa: BLE001 - one failed look must not end all later ones
            log_failed_look(_log, "look_failed", error)
            return known
        # Who began to wait during this look is not found, and is looked at next. Who is not known never
        # waited before. What is known of who waits again is older than its own look: a change since shows.
        self._wake([silo for silo in self._waiting if silo in found and known.get(silo) != found[silo]])
        return {**known, **found}

    def _read(self, silos: list[uuid.UUID]) -> Mapping[uuid.UUID, object]:
        with self._world().database.read() as session:
            return silo_fingerprints(session, silos)

    def _wake(self, silos: list[uuid.UUID]) -> None:
        for silo in silos:
            for woken in self._waiting[silo]:
                woken.set()
