"""The meeting of a trunk's replicas after a round, where the silos of all of them have to do with each other.

Replicas that are hosted by several workers have no table at which all silos sit. So after a round all silos
of the job join one more conversation each, under a lease of its own and the replica number that comes after
the last trunk's. Each comes with its blocks as the round left them, which it has on its disk, and leaves with
those of the meeting on its disk: averaged by a secure sum, evaluated with the trunks' average, or both. Until
then nothing of the round is given up: a meeting that is interrupted begins again with the same values, and
ends with the same bits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from splitlearn.errors import ProtocolError, StorageError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.parties.averaging import SiloAveraging, average_at_trunk
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.evaluating import SiloEvaluation, evaluate_at_trunk, refuse_unasked_best
from splitlearn.parties.leaving import dismiss, take_leave
from splitlearn.parties.plan import evaluates_after
from splitlearn.parties.progress import OnProgress, RoundFinished, TurnStarted, ignore_progress
from splitlearn.parties.round_table import RoundTable
from splitlearn.parties.summarising import phases_of
from splitlearn.parties.watched_rounds import WatchedRounds
from splitlearn.protocol import PhaseRefusedError
from splitlearn.spec import JobSpec
from splitlearn.tasks import LossSum
from splitlearn.training import CheckpointStore, SiloTrainer, TrunkTrainer
from splitlearn.wire import (
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Ready,
    Refusal,
    RoundEnd,
    RoundSaved,
    SumStart,
    TurnStart,
)

Commit = Callable[[], Awaitable[None]]
"""Commits the round's average; whatever it raises, the silos may meet again over the same round."""


def meeting_of(spec: JobSpec) -> int | None:
    """Return the replica number of a job's meetings; None for a trunk without replicas."""
    return len(spec.shares) if len(spec.shares) > 1 else None


def is_meeting(spec: JobSpec, replica: int) -> bool:
    """Whether a lease of this number is a meeting's, and no trunk's."""
    return replica == meeting_of(spec)


@dataclass
class Judged:
    """What decides at a meeting: the trunk's average, and what the evaluations have said so far.

    Attributes:
        trainer: The trunk as after the last meeting, with the best round that was known then; at the first
            meeting as the job began.
        compute: Where the trainer runs.
        average: The trunk after this round, of all replicas.
        rounds: What the evaluations up to the last meeting said.
        begun: What the replicas' silos told before step 1, which is judged at the first meeting.
    """

    trainer: TrunkTrainer
    compute: ComputeThread
    average: Mapping[str, Tensor]
    rounds: WatchedRounds
    begun: Mapping[str, LossSum] = field(default_factory=dict)

    def state(self) -> dict[str, Tensor]:
        """Return the round's average, and all that the next meeting, and the job's end, must know."""
        return {**self.average, **self.rounds.state(), **self.trainer.best_state()}


@dataclass
class MeetingParty:
    """The worker that leads the meeting of one round.

    Attributes:
        spec: The job.
        round: From 1; every replica has committed it.
        exchanges: The conversation with each silo of the job, begun, by name.
        commit: Makes the round's average count; called once every silo has on disk what the meeting left.
        judged: What is evaluated, where that decides on the job's end or its result; None elsewhere.
        on_progress: Told of the sum, and of the round; must not block.
    """

    spec: JobSpec
    round: int
    exchanges: Mapping[str, Exchange]
    commit: Commit
    judged: Judged | None = None
    on_progress: OnProgress = ignore_progress
    _table: RoundTable = field(init=False)

    def __post_init__(self) -> None:
        self._table = RoundTable(self.exchanges, patience_seconds=self.spec.patience_seconds)

    @property
    def _names(self) -> list[str]:
        return [silo.name for silo in self.spec.silos if silo.name in self.exchanges]

    async def run(self) -> None:
        """Lead the meeting to its end.

        Raises:
            StorageError: A silo has not got the round on its disk any more.
            TrainingError: A silo left, or made no progress within patience.
            TrunklineError: A conversation failed, or the commit. The silos are told that, not how.
        """
        async with self._table:
            try:
                await self._lead()
            except TrunklineError:
                await dismiss(self.exchanges.values(), JobStatus.FAILED)
                raise
            except asyncio.CancelledError:
                await dismiss(self.exchanges.values(), JobStatus.CANCELLED)
                raise
            await dismiss(self.exchanges.values(), JobStatus.CANCELLED)

    async def _lead(self) -> None:
        ready = await self._table.collect(self._names, Ready)
        for name, message in ready.items():
            _refuse_behind(name, message.last_round, self.round)
        if self.judged is not None and self.round == 1:
            await self._judge_the_begin(self.judged)
        if self.spec.silo_blocks == "averaged":
            summed = await average_at_trunk(
                self._table, self._names, round_number=self.round, step=self.spec.steps_per_round
            )
            self.on_progress(summed)
        if self.judged is not None:
            await self._judge(self.judged)
        await self._end_round(self.round)
        await self.commit()
        if self.judged is not None:
            self.on_progress(RoundFinished(self.round, best_round=self.judged.rounds.best_round))

    async def _judge_the_begin(self, judged: Judged) -> None:
        """Silos and trunk are still as the job began: what of it may be the result is kept now."""
        if judged.begun:
            judged.rounds.evaluated(0, judged.begun)
        if judged.rounds.is_best(0):
            await self._end_round(0)

    async def _judge(self, judged: Judged) -> None:
        # The average knows of no best round: what was known before it stays.
        await judged.compute(judged.trainer.load_state, judged.average, keeps_best=True)
        if not evaluates_after(self.spec, self.round):
            return
        losses = await evaluate_at_trunk(
            self._table,
            self._names,
            spec=self.spec,
            trainer=judged.trainer,
            compute=judged.compute,
            round_number=self.round,
        )
        judged.rounds.evaluated(self.round, losses)

    async def _end_round(self, round_number: int) -> None:
        is_best = self.judged is not None and self.judged.rounds.is_best(round_number)
        await self._table.send_all(self._names, RoundEnd(round=round_number, is_best=is_best))
        if is_best and self.judged is not None:
            await self.judged.compute(self.judged.trainer.keep_best, round_number)
        saved = await self._table.collect(self._names, RoundSaved)
        wrong = [name for name, message in saved.items() if message.round != round_number]
        if wrong:
            raise ProtocolError(f"silo {wrong[0]!r} saved another round than {round_number}")


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
        trainer: Its blocks, as the job began.
        trained: Its rounds as its replica left them.
        averaged: Its rounds as the meetings left them.
        averaging: Takes part in the secure sum; None where the job has none.
        evaluation: Its part in the evaluation.
        exchange: The conversation with the worker that leads, begun.
        compute: Where the trainer runs.
        on_progress: Told of every turn; must not block.
    """

    spec: JobSpec
    silo: str
    trainer: SiloTrainer
    trained: CheckpointStore
    averaged: CheckpointStore
    averaging: SiloAveraging | None
    evaluation: SiloEvaluation
    exchange: Exchange
    compute: ComputeThread
    on_progress: OnProgress = ignore_progress
    _here: int = field(default=0, init=False)
    _summed: int | None = field(default=None, init=False)
    _has_kept_the_begin: bool = field(default=False, init=False)
    _has_saved: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Take part until the worker ends the meeting; what it left of the round is on disk then.

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
                case TurnStart() if message.phase is not Phase.TRAIN:
                    await self._evaluate(message)
                case RoundEnd(round=0):
                    await self._keep_the_begin(message)
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
                "the silos were done; its log says why"
            )
        if isinstance(message, Refusal):
            raise PhaseRefusedError(f"{self.exchange.peer} refused: {message.code.name.lower()}")
        return message

    async def _average(self, start: SumStart) -> None:
        """Sum what the round changed, as it is on the disk: also where a sum is begun anew."""
        is_next = (start.round, start.step) == (self.trained.last_round(), self.spec.steps_per_round)
        if self.averaging is None or not is_next:
            raise ProtocolError(
                f"the meeting asks for a sum of the silos' blocks in round {start.round} after {start.step} "
                f"steps; this silo has trained up to round {self.trained.last_round()}, each has "
                f"{self.spec.steps_per_round} steps, and its blocks are {self.spec.silo_blocks}"
            )
        self._here, self._has_saved = 0, False
        await self._be_at(start.round)
        self._summed = start.round
        await self.averaging.run(start, send=self.exchange.send, receive=self._receive)

    async def _evaluate(self, turn: TurnStart) -> None:
        await self._be_at(turn.round)
        self.on_progress(TurnStarted(self.silo, turn.phase, turn.round, turn.first_step, turn.num_steps))
        await self.evaluation.run(turn, send=self.exchange.send, receive=self._receive)

    async def _be_at(self, round_number: int) -> None:
        """Have the blocks as the replica left them after a round, unless the meeting has begun with them."""
        if self._here == round_number:
            return
        if round_number != self.trained.last_round():
            raise ProtocolError(
                f"the meeting is of round {round_number}; this silo has trained up to round "
                f"{self.trained.last_round()}"
            )
        tensors = await asyncio.to_thread(self.trained.load, round_number)
        await self.compute(self.trainer.load_state, tensors, keeps_best=self._has_kept_the_begin)
        self._here = round_number

    async def _keep_the_begin(self, message: RoundEnd) -> None:
        refuse_unasked_best(self.spec, 0)
        if self._here or not message.is_best:
            raise ProtocolError(
                f"the meeting ends round 0 where this silo is at round {self._here}: that is the first word, "
                "and only where what the job began with may be the result"
            )
        await self.compute(self.trainer.keep_best, 0)
        self._has_kept_the_begin = True
        await self.exchange.send(RoundSaved(round=0))

    async def _save(self, message: RoundEnd) -> None:
        if self.spec.silo_blocks == "averaged" and message.round != self._summed:
            raise ProtocolError(f"the meeting ends round {message.round}; summed was {self._summed}")
        await self._be_at(message.round)
        if message.is_best:
            refuse_unasked_best(self.spec, message.round)
            await self.compute(self.trainer.keep_best, message.round)
        await self.compute(self.averaged.save, self.trainer.state(), round_number=message.round)
        self._has_saved = True
        await self.exchange.send(RoundSaved(round=message.round))
