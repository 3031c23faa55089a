"""Wakes whoever waits for the database to change: streams (asyncio) and the reconciler (a thread).

A hint, not a message: who is woken looks into the database, and looks now and then anyway. Other processes'
waiting are woken by :mod:`backend.events.fanout`.
"""

import asyncio
import threading
from collections.abc import Callable


class Bus:
    """One per process; :meth:`notify` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Event] = set()
        self._tasks: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._is_closed = False
        self._tell_others: Callable[[], None] | None = None

    def on_notify(self, tell_others: Callable[[], None]) -> None:
        """Call this, which must not block, whenever this process changed something."""
        self._tell_others = tell_others

    def notify(self) -> None:
        """Wake everybody, here and, where processes are joined, elsewhere: this one changed something."""
        self.wake()
        if self._tell_others is not None:
            self._tell_others()

    def wake(self) -> None:
        """Wake everybody in this process."""
        with self._lock:
            for waiting in self._threads:
                waiting.set()
            for woken, loop in self._tasks.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(woken.set)

    def close(self) -> None:
        """End every stream; the process stops."""
        self._is_closed = True
        self.wake()

    @property
    def is_closed(self) -> bool:
        """Whether the process stops."""
        return self._is_closed

    def thread_listener(self) -> threading.Event:
        """Return an event that is set whenever something changed; the listener clears it."""
        listener = threading.Event()
        with self._lock:
            self._threads.add(listener)
        return listener

    def task_listener(self) -> asyncio.Event:
        """Return the same for the running loop; give it back by :meth:`forget`."""
        listener = asyncio.Event()
        with self._lock:
            self._tasks[listener] = asyncio.get_running_loop()
        return listener

    def forget(self, listener: asyncio.Event) -> None:
        """Stop waking this listener."""
        with self._lock:
            self._tasks.pop(listener, None)
