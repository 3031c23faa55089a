"""A conversation for generation alone, at the silo: it joins, asks for a turn, and takes its leave."""

import asyncio
import contextlib
from types import TracebackType

from splitlearn.errors import LocalProtocolError, ProtocolError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.generation.silo import Compute, SiloGenerator
from splitlearn.partition import SiloBlocks
from splitlearn.protocol import GENERATION_PHASES, PhaseRefusedError
from splitlearn.training.precision import Precision
from splitlearn.wire import (
    Goodbye,
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Ready,
    Refusal,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)

_FAREWELL_SECONDS = 2.0


class GenerationTalk:
    """Gives out a :class:`SiloGenerator` for as long as it is entered; an async context manager.

    Args:
        blocks: The silo's bottom and top.
        exchange: The conversation with the worker, begun; its protocol serves
            :data:`~splitlearn.protocol.GENERATION_PHASES`.
        compute: Where the blocks are computed.
        round_number: The round whose weights the blocks have; 0 for those of the base model.
        precision: Of the job.
    """

    def __init__(
        self,
        blocks: SiloBlocks,
        *,
        exchange: Exchange,
        compute: Compute,
        round_number: int,
        precision: Precision = "fp32",
    ) -> None:
        self._exchange, self._round = exchange, round_number
        self._over: TrainingError | None = None
        self._generator = SiloGenerator(
            blocks,
            send=self._send,
            receive=self._receive,
            compute=compute,
            peer=exchange.peer,
            precision=precision,
        )

    async def __aenter__(self) -> SiloGenerator:
        """Join and wait for the turn.

        Raises:
            PhaseRefusedError: The worker serves no generation, or holds another round's weights.
            TrunklineError: The conversation failed.
        """
        try:
            await self._begin()
        except BaseException:
            await self._farewell(GoodbyeReason.FAILED)
            raise
        return self._generator

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the turn and say goodbye; after an error only the latter."""
        if error is not None:
            cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            await self._farewell(GoodbyeReason.CANCELLED if cancelled else GoodbyeReason.FAILED)
            return
        await self._generator.settle()
        await self._send(TurnEnd(outcome=None, loss_sum=0.0, num_tokens=0))
        answer = await self._receive()
        if not isinstance(answer, TurnResult):
            raise ProtocolError(f"a {type(answer).__name__} message where the turn's result is due")
        await self._exchange.send(Goodbye(reason=GoodbyeReason.FINISHED))
        await self._exchange.flushed()

    async def _begin(self) -> None:
        await self._send(Ready(last_round=self._round, served=GENERATION_PHASES))
        await self._send(TurnRequest(phase=Phase.GENERATE))
        answer = await self._receive()
        if not isinstance(answer, TurnStart) or answer.round != self._round:
            raise ProtocolError(
                f"a {type(answer).__name__} message where a generating turn of round {self._round} is due"
            )

    async def _send(self, message: Message) -> None:
        try:
            await self._exchange.send(message)
        except LocalProtocolError:
            while self._exchange.has_received:  # while we computed, the worker may have ended it
                await self._receive()
            if self._over is not None:
                raise self._over from None
            raise

    async def _receive(self) -> Message:
        message = (await self._exchange.receive()).message
        if isinstance(message, Refusal):
            raise PhaseRefusedError(
                f"{self._exchange.peer} refused to generate with the weights of round {self._round}: "
                f"{message.code.name.lower()}"
            )
        if isinstance(message, JobEnd):
            self._over = _ended(message, peer=self._exchange.peer)
            raise self._over
        return message

    async def _farewell(self, reason: GoodbyeReason) -> None:
        # The first error counts: what goes wrong with a farewell adds nothing to it.
        with contextlib.suppress(TrunklineError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._exchange.send(Goodbye(reason=reason))
                await self._exchange.flushed()


def _ended(message: JobEnd, *, peer: str) -> TrainingError:
    if message.status is JobStatus.FAILED:
        return TrainingError(f"the trunk's worker {peer} failed while it generated; its log says why")
    return TrainingError(
        f"the trunk's worker {peer} ended the generation: nothing was asked for too long, or the worker is "
        "needed elsewhere; begin another"
    )
