"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once. Torch-free."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_LOOK_SECONDS = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns both signals into ``KeyboardInterrupt``, or into a call while somebody asks for one.

    A context manager for the main thread; the handlers that were there before come back at its end.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._cancel: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._before = {signum: signal.signal(signum, self._receive) for signum in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the earlier handlers back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @property
    def signum(self) -> int | None:
        """The first signal that came, or None."""
        return self._signum

    @contextmanager
    def calls(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Within, the first signal calls ``cancel`` where an exception would do damage: in an event loop."""
        self._cancel = cancel
        try:
            yield
        finally:
            self._cancel = None

    def waits(self) -> AbstractContextManager[None]:
        """Within, the first signal does nothing; for imports, which an exception leaves half done."""
        return self.calls(lambda: None)

    def settle(self) -> None:
        """From now on the first signal does nothing: how the run ended is decided, and being written."""
        self._cancel = lambda: None

    def wait(self) -> None:
        """Return when a signal has come."""
        while self._signum is None:
            time.sleep(_LOOK_SECONDS)

    def interrupt(self, signum: int) -> None:
        """Do what this signal would do; for SIGPIPE, which Python turns into an error of a write.

        Raises:
            KeyboardInterrupt: Nothing is to be called, or an earlier signal has called it.
        """
        self._receive(signum, None)

    def check(self) -> None:
        """Notice a signal that came while it was to call, or to wait.

        Raises:
            KeyboardInterrupt: If one came.
        """
        if self._signum is not None:
            raise KeyboardInterrupt

    def _receive(self, signum: int, _: FrameType | None) -> None:
        is_first, self._signum = self._signum is None, self._signum or signum
        if is_first and self._cancel is not None:
            self._cancel()
        else:
            raise KeyboardInterrupt
