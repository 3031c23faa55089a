"""The meeting of a trunk's replicas after a round: one secure sum over the silos of all of them.

Replicas that are hosted by several workers have no table at which all silos sit. So after a round all silos
of the job join one more conversation each, under a lease of its own and the replica number that comes after
the last trunk's. Each comes with its blocks as the round left them, which it has on its disk, and leaves with
the average on its disk. Until then nothing of the round is given up: a meeting that is interrupted begins
again with the same values, and ends with the same bits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from splitlearn.errors import ProtocolError, StorageError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.parties.averaging import SiloAveraging, average_at_trunk
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.leaving import dismiss, take_leave
from splitlearn.parties.progress import BlocksAveraged
from splitlearn.parties.round_table import RoundTable
from splitlearn.parties.summarising import phases_of
from splitlearn.protocol import PhaseRefusedError
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore, SiloTrainer
from splitlearn.wire import (
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    Ready,
    Refusal,
    RoundEnd,
    RoundSaved,
    SumStart,
)

Commit = Callable[[], Awaitable[None]]
"""Commits the round's average; whatever it raises, the silos may meet again over the same round."""


def meeting_of(spec: JobSpec) -> int | None:
    """Return the replica number of a job's meetings; None for a trunk without replicas."""
    return len(spec.shares) if len(spec.shares) > 1 else None


def is_meeting(spec: JobSpec, replica: int) -> bool:
    """Whether a lease of this number is a meeting's, and no trunk's."""
    return replica == meeting_of(spec)


def keeps_averages_apart(spec: JobSpec) -> bool:
    """Whether a silo of several workers' trunks has two checkpoints of a round: as trained, and averaged."""
    return meeting_of(spec) is not None and spec.silo_blocks == "averaged"


@dataclass
class MeetingParty:
    """The worker that leads the meeting of one round.

    Attributes:
        spec: The job.
        round: From 1; every replica has committed it.
        exchanges: The conversation with each silo of the job, begun, by name.
        commit: Makes the round's average count; called once every silo has the average of the blocks on disk.
    """

    spec: JobSpec
    round: int
    exchanges: Mapping[str, Exchange]
    commit: Commit
    _table: RoundTable = field(init=False)

    def __post_init__(self) -> None:
        self._table = RoundTable(self.exchanges, patience_seconds=self.spec.patience_seconds)

    async def run(self) -> BlocksAveraged:
        """Lead the meeting to its end.

        Raises:
            StorageError: A silo has not got the round on its disk any more.
            TrainingError: A silo left, or made no progress within patience.
            TrunklineError: A conversation failed, or the commit. The silos are told that, not how.
        """
        async with self._table:
            try:
                summed = await self._lead()
            except TrunklineError:
                await dismiss(self.exchanges.values(), JobStatus.FAILED)
                raise
            except asyncio.CancelledError:
                await dismiss(self.exchanges.values(), JobStatus.CANCELLED)
                raise
            await dismiss(self.exchanges.values(), JobStatus.CANCELLED)
            return summed

    async def _lead(self) -> BlocksAveraged:
        names = [silo.name for silo in self.spec.silos]
        ready = await self._table.collect(names, Ready)
        for name, message in ready.items():
            _refuse_behind(name, message.last_round, self.round)
        summed = await average_at_trunk(
            self._table, names, round_number=self.round, step=self.spec.steps_per_round
        )
        await self._table.send_all(names, RoundEnd(round=self.round))
        saved = await self._table.collect(names, RoundSaved)
        wrong = [name for name, message in saved.items() if message.round != self.round]
        if wrong:
            raise ProtocolError(f"silo {wrong[0]!r} saved another round than {self.round}")
        await self.commit()
        return summed


def _refuse_behind(silo: str, last_round: int, wanted: int) -> None:
    if last_round < wanted:
        raise StorageError(
            f"silo {silo!r} has no checkpoint after round {wanted}, only up to {last_round}; "
            "retry the job from an earlier round that is kept: trunkline jobs retry"
        )


@dataclass
class SiloAtMeeting:
    """A silo in the meeting of one round.

    Attributes:
        spec: The job.
        silo: This silo's name in the roster.
        trainer: Its blocks.
        trained: Its rounds as its replica left them.
        averaged: Its rounds with the average of the blocks.
        averaging: Takes part in the secure sum.
        exchange: The conversation with the worker that leads, begun.
        compute: Where the trainer runs.
    """

    spec: JobSpec
    silo: str
    trainer: SiloTrainer
    trained: CheckpointStore
    averaged: CheckpointStore
    averaging: SiloAveraging
    exchange: Exchange
    compute: ComputeThread
    _summed: int | None = field(default=None, init=False)
    _has_saved: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Take part until the worker ends the meeting; the average of the round is on disk then.

        Raises:
            TrainingError: The worker ended the meeting before its end.
            TrunklineError: The conversation, the sum or the disk failed; the worker is told that, not how.
        """
        try:
            await self._follow()
        except TrunklineError:
            await take_leave(self.exchange, GoodbyeReason.FAILED)
            raise

    async def _follow(self) -> None:
        await self.exchange.send(Ready(last_round=self.trained.last_round(), served=phases_of(self.spec)))
        while True:
            message = await self._receive()
            match message:
                case SumStart():
                    await self._average(message)
                case RoundEnd():
                    await self._save(message)
                case JobEnd():
                    return
                case _:
                    raise ProtocolError(f"a {type(message).__name__} message where replicas meet")

    async def _receive(self) -> Message:
        message = (await self.exchange.receive()).message
        if isinstance(message, JobEnd) and not (self._has_saved and message.status is JobStatus.CANCELLED):
            raise TrainingError(
                f"the worker {self.exchange.peer} ended the meeting as {message.status.name.lower()} before "
                "the silos had averaged their blocks; its log says why"
            )
        if isinstance(message, Refusal):
            raise PhaseRefusedError(f"{self.exchange.peer} refused: {message.code.name.lower()}")
        return message

    async def _average(self, start: SumStart) -> None:
        """Sum what the round changed, as it is on the disk: also where a sum is begun anew."""
        if (start.round, start.step) != (self.trained.last_round(), self.spec.steps_per_round):
            raise ProtocolError(
                f"the meeting asks for a sum of the silos' blocks in round {start.round} after {start.step} "
                f"steps; this silo has trained up to round {self.trained.last_round()}, and each has "
                f"{self.spec.steps_per_round} steps"
            )
        self._summed, self._has_saved = start.round, False
        tensors = await asyncio.to_thread(self.trained.load, start.round)
        await self.compute(self.trainer.load_state, tensors)
        await self.averaging.run(start, send=self.exchange.send, receive=self._receive)

    async def _save(self, message: RoundEnd) -> None:
        if message.round != self._summed:
            raise ProtocolError(f"the meeting ends round {message.round}; summed was {self._summed}")
        await self.compute(self.averaged.save, self.trainer.state(), round_number=message.round)
        self._has_saved = True
        await self.exchange.send(RoundSaved(round=message.round))
