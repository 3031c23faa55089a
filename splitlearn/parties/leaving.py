"""How a party takes its leave before the job's end: one word, if the other side can still be reached."""

import asyncio
import contextlib
from collections.abc import Iterable

from splitlearn.errors import TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.wire import Goodbye, GoodbyeReason, JobEnd, JobStatus, Message

_FAREWELL_SECONDS = 2.0


async def take_leave(exchange: Exchange, reason: GoodbyeReason) -> None:
    """Tell the trunk's worker why this silo goes; returns after a moment, heard or not."""
    # The first error counts: what goes wrong with a farewell adds nothing to it.
    with contextlib.suppress(TrunklineError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await _say(exchange, Goodbye(reason=reason))


async def dismiss(exchanges: Iterable[Exchange], status: JobStatus) -> None:
    """Tell all silos that the sitting is over; returns after a moment, heard or not."""
    with contextlib.suppress(TrunklineError, RuntimeError, TimeoutError, ExceptionGroup):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await asyncio.gather(
                *(_say(exchange, JobEnd(status=status)) for exchange in exchanges), return_exceptions=True
            )


async def _say(exchange: Exchange, message: Message) -> None:
    await exchange.send(message)
    await exchange.flushed()
