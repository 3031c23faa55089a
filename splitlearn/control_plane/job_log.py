"""What a party tells the control plane of its part in a job: lines of words and numbers, never a text."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from splitlearn.control_plane.errors import RefusedError
from splitlearn.control_plane.schemas import MAX_LOG_LINES, LogLine

_BATCH_SECONDS = 1.0
_LAST_WORD_SECONDS = 2.0
STEP_SECONDS = 10.0
"""Between two lines about steps: a job of days must not fill a log with them."""

SendLines = Callable[[Sequence[LogLine]], Awaitable[None]]
Level = Literal["info", "warning", "error"]


class JobLog:
    """Takes lines from any thread, and sends them as they come; the oldest are lost where nobody takes them.

    A line that is lost ends no training: what the control plane must know is told by other words.

    Args:
        send: Hands lines over; waits while the control plane is away.
    """

    def __init__(self, send: SendLines) -> None:
        self._send = send
        self._waiting: deque[LogLine] = deque(maxlen=MAX_LOG_LINES)

    def tell(
        self,
        event: str,
        *,
        level: Level = "info",
        code: str = "",
        round_number: int | None = None,
        step: int | None = None,
        epoch: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Take in a line; does not wait."""
        self._waiting.append(
            LogLine(
                at=datetime.now(tz=UTC),
                level=level,
                event=event,
                code=code,
                round=round_number,
                step=step,
                epoch=epoch,
                seconds=seconds,
            )
        )

    async def run(self) -> None:
        """Send what there is, about once a second, until cancelled; then what is left, if that is quick."""
        try:
            while True:
                await asyncio.sleep(_BATCH_SECONDS)
                await self._flush()
        finally:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._flush()

    async def _flush(self) -> None:
        while lines := tuple(self._waiting):
            with contextlib.suppress(RefusedError):  # the job is gone: nobody wants these lines
                await self._send(lines)
            sent = set(map(id, lines))
            while self._waiting and id(self._waiting[0]) in sent:  # the oldest may have been pushed out
                self._waiting.popleft()
