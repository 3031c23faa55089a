"""Averaging the silos' blocks, as both parties do it: the secure sum, carried by their conversation."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from splitlearn.errors import ProtocolError
from splitlearn.identity import Identity, TrustStore
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.progress import BlocksAveraged
from splitlearn.parties.replicas import Conversations
from splitlearn.parties.round_table import unexpected
from splitlearn.privacy import MIN_SILOS, PARTS_AHEAD, ServerState, SiloSum, SumRecord, SumServer, decode
from splitlearn.privacy.server import ToMember
from splitlearn.spec import JobSpec
from splitlearn.training import SiloTrainer
from splitlearn.wire import (
    Message,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
)

Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


def _utc_now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass
class SiloAveraging:
    """A silo's part in the sums of its job.

    Attributes:
        sums: Its side of the secure sum.
        trainer: Its blocks.
        compute: Where vectors are encoded and masked.
        fraction_bits: Binary digits behind the point of the sum's numbers.
        now: Time against which the others' certificates are checked.
    """

    sums: SiloSum
    trainer: SiloTrainer
    compute: ComputeThread
    fraction_bits: int
    now: Callable[[], datetime] = _utc_now

    @classmethod
    def of(
        cls,
        spec: JobSpec,
        *,
        job: str,
        identity: Identity,
        trust: TrustStore,
        record: Path,
        trainer: SiloTrainer,
        compute: ComputeThread,
        min_silos: int = MIN_SILOS,
    ) -> "SiloAveraging":
        """Make a silo ready for the sums of a job.

        Args:
            spec: The job.
            job: The job's id.
            identity: Who this silo is.
            trust: Whom it believes.
            record: File in which it notes what was summed; it must outlive the process.
            trainer: Its blocks.
            compute: Where they are computed.
            min_silos: Fewest members that this silo sums with; 3 or more.

        Raises:
            RosterRefusedError: The job has fewer silos.
            StorageError: The file is torn, or another job's.
        """
        sums = SiloSum(
            job=job,
            spec_digest=spec.digest(),
            roster=[silo.name for silo in spec.silos],
            identity=identity,
            trust=trust,
            record=SumRecord(record, job=job, spec_digest=spec.digest()),
            fraction_bits=spec.averaging.fraction_bits,
            min_silos=min_silos,
        )
        return cls(sums, trainer, compute, spec.averaging.fraction_bits)

    async def run(self, start: SumStart, *, send: Send, receive: Receive) -> None:
        """Take part in one sum; the blocks are the average when this returns, unless it was given up.

        Raises:
            SumError: The server or a member broke the sum's rules; not a word more has left.
            FixedPointError: A tensor holds a value that does not fit.
            StorageError: The sum could not be noted; nothing has left.
        """
        await send(await self.compute(self._begin, start))
        while True:
            message = await receive()
            match message:
                case SumRoster():
                    await send(await self.compute(self.sums.consent, message, now=self.now()))
                case SumConsents():
                    await self.compute(self._accept, message)
                    await self._send_parts(send)
                case SumTotal():
                    await self.compute(self.sums.take, message)
                    await self._send_parts(send)
                case SumEnd():
                    await send(await self.compute(self._end, message))
                    return
                case _:
                    raise ProtocolError(f"a {type(message).__name__} message inside a sum of blocks")

    async def _send_parts(self, send: Send) -> None:
        while self.sums.has_parts and self.sums.parts_ahead < PARTS_AHEAD:
            await send(await self.compute(self.sums.next_part))

    def _begin(self, start: SumStart) -> SumKey:
        blocks = self.trainer.averaged_blocks
        return self.sums.begin(start, num_tokens=blocks.num_tokens, num_words=blocks.num_words)

    def _accept(self, consents: SumConsents) -> None:
        self.sums.accept(consents, self.trainer.averaged_blocks.changes())

    def _end(self, word: SumEnd) -> SumDone:
        total = self.sums.end(word)
        if total is None:
            return SumDone(averaged=False)
        self.trainer.take_average(decode(total, fraction_bits=self.fraction_bits))
        return self.sums.finish()


async def average_at_trunk(
    table: Conversations, names: Sequence[str], *, round_number: int, step: int
) -> BlocksAveraged:
    """Lead one sum of the silos' blocks, of which the trunk sees neither a part nor the whole.

    Args:
        table: The conversations.
        names: The silos, in the job's order.
        round_number: From 1.
        step: Steps of each silo in this round so far.

    Raises:
        RosterRefusedError: There are fewer than 3.
        TrainingError: A silo left, or made no progress within patience.
        SumMessageError: A silo broke the sum's rules.
    """
    began = time.perf_counter()
    server = SumServer(names, round_number=round_number, step=step)
    await _say(table, server.begin())
    while server.state is not ServerState.OVER:
        name, message = await table.next(server.due)
        if not isinstance(message, SumKey | SumConsent | SumPart | SumDone):
            raise unexpected(name, message)
        await _say(table, server.receive(name, message))
    seconds = time.perf_counter() - began
    return BlocksAveraged(server.members, round_number, step, server.averaged, seconds)


async def _say(table: Conversations, words: Sequence[ToMember]) -> None:
    for name, message in words:
        await table.send(name, message)
