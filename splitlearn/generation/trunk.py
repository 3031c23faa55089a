"""The worker's side of generation: serves any number of silos until they leave, or nobody asks any more."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from splitlearn.errors import ProtocolError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.generation.caches import TrunkCaches
from splitlearn.generation.silo import Compute
from splitlearn.wire import (
    CachedHidden,
    CacheEnd,
    CacheRefused,
    Decode,
    Goodbye,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Prefill,
    Ready,
    Refusal,
    RefusalCode,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)

_FAREWELL_SECONDS = 2.0


@dataclass
class TrunkGeneration:
    """One trunk that generates with silos of one job.

    Attributes:
        caches: The trunk and its caches.
        exchanges: The conversation with each silo, begun, by name; its protocol serves
            :data:`~splitlearn.protocol.GENERATION_PHASES`.
        compute: Where the trunk is computed.
        round_number: The round whose weights the trunk has; a silo with another's is refused.
        idle_seconds: Without a question from anybody for so long, all are dismissed.
        num_tokens: Tokens computed so far, prompts included.
    """

    caches: TrunkCaches
    exchanges: Mapping[str, Exchange]
    compute: Compute
    round_number: int
    idle_seconds: float
    now: Callable[[], float] = time.monotonic
    num_tokens: int = field(default=0, init=False)
    _heard_at: float = field(default=0.0, init=False)
    _rounds: dict[str, int] = field(default_factory=dict, init=False)

    async def run(self) -> bool:
        """Serve until every silo has left.

        Returns:
            Whether they left by themselves; else they were idle and were dismissed.

        Raises:
            TrunklineError: A conversation failed. The others are told that it is over, not how.
        """
        self._heard_at = self.now()
        serving = {
            asyncio.create_task(self._serve(name, exchange), name=f"generate with {name}")
            for name, exchange in self.exchanges.items()
        }
        try:
            return await self._wait(serving)
        except (TrunklineError, asyncio.CancelledError) as error:
            is_cancelled = isinstance(error, asyncio.CancelledError)
            await self._farewell(JobStatus.CANCELLED if is_cancelled else JobStatus.FAILED)
            raise
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def _wait(self, serving: set[asyncio.Task[None]]) -> bool:
        pending = serving
        while pending:
            left = self._heard_at + self.idle_seconds - self.now()
            if left <= 0:
                await self._farewell(JobStatus.COMPLETED)
                return False
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return True

    async def _serve(self, name: str, exchange: Exchange) -> None:
        try:
            while True:
                message = (await exchange.receive()).message
                self._heard_at = self.now()
                if isinstance(message, Goodbye):
                    return
                await self._answer(name, exchange, message)
                self._heard_at = self.now()
        finally:
            await self.compute(self.caches.end_all, name)

    async def _answer(self, name: str, exchange: Exchange, message: Message) -> None:
        match message:
            case Ready():
                if Phase.GENERATE not in message.served:
                    raise ProtocolError(f"silo {name!r} joined a generation and does not serve it")
                self._rounds[name] = message.last_round
            case TurnRequest():
                await self._begin(name, exchange, message)
            case Prefill() | Decode():
                answer = await self.compute(self._compute_answer, name, message)
                await exchange.send(answer)
            case CacheEnd():
                await self.compute(self.caches.end, name, message.cache)
            case TurnEnd():
                await self.compute(self.caches.end_all, name)
                await exchange.send(TurnResult(voided=False))
            case _:
                raise ProtocolError(f"silo {name!r} sent {type(message).__name__} in a generation")

    async def _begin(self, name: str, exchange: Exchange, message: TurnRequest) -> None:
        if message.phase is not Phase.GENERATE:
            return  # the protocol has refused it
        if self._rounds[name] != self.round_number:
            await exchange.send(Refusal(code=RefusalCode.WRONG_ROUND))
            return
        await exchange.send(
            TurnStart(phase=Phase.GENERATE, round=self.round_number, first_step=0, num_steps=0)
        )

    def _compute_answer(self, name: str, message: Prefill | Decode) -> CachedHidden | CacheRefused:
        answer = self.caches.answer(name, message)
        if isinstance(answer, CachedHidden):
            self.num_tokens += len(answer.hidden)
        return answer

    async def _farewell(self, status: JobStatus) -> None:
        # The first error counts: what goes wrong with a farewell adds nothing to it.
        with contextlib.suppress(TrunklineError, RuntimeError, TimeoutError, ExceptionGroup):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await asyncio.gather(
                    *(self._dismiss(exchange, status) for exchange in self.exchanges.values()),
                    return_exceptions=True,
                )

    async def _dismiss(self, exchange: Exchange, status: JobStatus) -> None:
        await exchange.send(JobEnd(status=status))
        await exchange.flushed()
