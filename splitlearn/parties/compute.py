"""Where a party's tensors are computed: one thread of its own, so that the connection stays answered.

One thread, always the same one: OpenMP keeps a pool of workers per calling thread, and one optimiser
must never be entered twice.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ComputeThread:
    """Runs functions one after another in one thread; an async context manager.

    Args:
        name: Name of the thread, for debuggers.

    Attributes:
        busy_seconds: How long it has computed so far; changed by the thread alone.
    """

    def __init__(self, name: str) -> None:
        self.busy_seconds = 0.0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __aenter__(self) -> Self:
        """Give out the thread."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the running function, start no other."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` in the thread and return or raise what it does."""
        loop = asyncio.get_running_loop()

        def work() -> R:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.busy_seconds += time.perf_counter() - began

        return await loop.run_in_executor(self._executor, work)
