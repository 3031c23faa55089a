"""Where a party's tensors are computed: one thread of its own, so that the connection stays answered.

One thread, always the same one: OpenMP keeps a pool of workers per calling thread, and one optimiser
must never be entered twice.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from splitlearn.errors import TrainingError

P = ParamSpec("P")
R = TypeVar("R")


class StuckError(TrainingError):
    """A computation has not come back within patience. A thread cannot be ended: its process has to."""

    code = "stuck"
    public = "a computation has not come back"


class ComputeThread:
    """Runs functions one after another in one thread; an async context manager.

    Args:
        name: Name of the thread, for debuggers and for people.
        patience_seconds: A function that takes longer is given up; None waits for ever.

    Attributes:
        busy_seconds: How long it has computed so far; changed by the thread alone.
        is_stuck: A function was given up, and runs on: end the process without waiting for its threads.
    """

    def __init__(self, name: str, *, patience_seconds: float | None = None) -> None:
        self.busy_seconds = 0.0
        self.is_stuck = False
        self._name, self._patience_seconds = name, patience_seconds
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._last: Future[Any] | None = None

    async def __aenter__(self) -> Self:
        """Give out the thread."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the running function, within patience; start no other.

        Raises:
            StuckError: It does not come back, and nothing went wrong but a cancellation.
        """
        if not self.is_stuck and self._last is not None and not self._last.done():
            # Not in a thread that waits for the other: it would be waited for in turn.
            running = asyncio.wrap_future(self._last)
            await asyncio.wait({running}, timeout=self._patience_seconds)
            if not running.done():
                self.is_stuck = True
            elif not running.cancelled():
                running.exception()  # whoever asked for it was told, or has gone
        await self._close()
        if self.is_stuck and (error is None or isinstance(error, asyncio.CancelledError)):
            raise self._stuck() from error

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` in the thread and return or raise what it does.

        Raises:
            StuckError: It has not come back within patience.
        """

        def work() -> R:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.busy_seconds += time.perf_counter() - began

        future = self._last = self._executor.submit(work)
        try:
            async with asyncio.timeout(self._patience_seconds) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if not limit.expired():
                raise
            self.is_stuck = True
            raise self._stuck() from error

    async def _close(self) -> None:
        if self.is_stuck:
            self._executor.shutdown(wait=False, cancel_futures=True)
        else:
            await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _stuck(self) -> StuckError:
        assert self._patience_seconds is not None, "without it nothing is given up"
        return StuckError(
            f"a computation of {self._name!r} has not come back for {self._patience_seconds:g} seconds "
            "(patience_seconds); see the device and its driver, or raise patience_seconds"
        )
