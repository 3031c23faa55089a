"""A job as the control plane sees it, seen from the process that works on it: always the newest word."""

import asyncio
from collections.abc import Callable

from splitlearn.control_plane.schemas import SiloJob


class JobView:
    """Holds the newest view and lets others wait for a change.

    Args:
        first: What is known at the beginning.
    """

    def __init__(self, first: SiloJob) -> None:
        self._job = first
        self._changed = asyncio.Condition()

    @property
    def job(self) -> SiloJob:
        """The newest view."""
        return self._job

    @property
    def epoch(self) -> int:
        """Epoch of the lease, 0 while nobody hosts the trunk."""
        return self._job.lease.epoch if self._job.lease is not None else 0

    async def update(self, job: SiloJob) -> None:
        """Take over a newer view."""
        async with self._changed:
            self._job = job
            self._changed.notify_all()

    async def until(self, holds: Callable[[SiloJob], bool]) -> SiloJob:
        """Wait until something holds of the view, and return the view."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self._job))
            return self._job
