"""Wakes whoever waits for the database to change: streams (asyncio) and the reconciler (a thread).

A hint, not a message: who is woken looks into the database, and looks now and then anyway.
"""

import asyncio
import threading


class Bus:
    """One per process; :meth:`notify` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Event] = set()
        self._tasks: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._is_closed = False

    def notify(self) -> None:
        """Wake everybody."""
        with self._lock:
            for waiting in self._threads:
                waiting.set()
            for woken, loop in self._tasks.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(woken.set)

    def close(self) -> None:
        """End every stream; the process stops."""
        self._is_closed = True
        self.notify()

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
