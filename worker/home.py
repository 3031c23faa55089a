"""The thread that speaks with the control plane, whatever the main thread computes.

Celery's solo pool runs a task in the main thread, for as long as the lease lasts. Heartbeats, renewals and
uploads have a thread and an event loop of their own, so that no forward pass delays them.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody
from splitlearn.control_plane.session import Session
from splitlearn.errors import TrunklineError

T = TypeVar("T")
MakeSession = Callable[[], Session]


class Home:
    """Holds the session in a thread of its own; a context manager that logs in.

    Args:
        make_session: Called in that thread.
        on_end: Told, in that thread, when the session can go on no more.
    """

    def __init__(self, make_session: MakeSession, *, on_end: Callable[[TrunklineError], None]) -> None:
        self._make_session, self._on_end = make_session, on_end
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control plane", daemon=True)
        self._stack = AsyncExitStack()
        self._client: PartyClient | None = None
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Log in; waits for the control plane if need be."""
        self._thread.start()
        try:
            self.start(self._log_in()).result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log out and end the thread."""
        try:
            self.start(self._log_out()).result()
        finally:
            self._stop()

    @property
    def client(self) -> PartyClient:
        """The control plane; to be called in this thread's loop alone, by :meth:`ask` or :meth:`start`."""
        assert self._client is not None, "entered"
        return self._client

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine in the thread; from any other."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def ask(self, question: Callable[[PartyClient], Awaitable[T]]) -> T:
        """Await an answer of the control plane in another event loop than the thread's."""

        async def work() -> T:
            return await question(self.client)

        return await asyncio.wrap_future(self.start(work()))

    @asynccontextmanager
    async def beside(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run a coroutine in the thread until the block is left; the block is in another event loop."""
        running = self.start(work)
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wrap_future(running)

    async def ticket(self, body: TicketBody, *, patience_seconds: float | None = None) -> TicketAnswer:
        """Get leave to open one connection; see ``PartyClient.ticket``."""
        return await self.ask(lambda client: client.ticket(body, patience_seconds=patience_seconds))

    async def _log_in(self) -> None:
        session = await self._stack.enter_async_context(self._make_session())
        self._client = PartyClient(session)
        self._watch = asyncio.create_task(self._wait_for_end(session), name="session's end")

    async def _wait_for_end(self, session: Session) -> None:
        self._on_end(await session.ended())

    async def _log_out(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._stack.aclose()

    def _stop(self) -> None:
        self.start(_cancel_others()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
