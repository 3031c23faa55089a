"""The trunk worker's part in a job: it leads the rounds and serves every silo of its roster."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from splitlearn.errors import LinkError, ProtocolError, StorageError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.parties.averaging import average_at_trunk
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.crossing import to_array
from splitlearn.parties.evaluating import evaluate_at_trunk
from splitlearn.parties.leaving import dismiss
from splitlearn.parties.plan import Turn, averages_after, evaluates_after, turns_of_round
from splitlearn.parties.progress import (
    BlocksAveraged,
    JobFinished,
    OnProgress,
    RoundFinished,
    TrunkStepped,
    TurnFinished,
    ignore_progress,
)
from splitlearn.parties.replicas import Peers
from splitlearn.parties.round_table import RoundTable
from splitlearn.parties.trunk_step import TrunkStep
from splitlearn.parties.watched_rounds import WatchedRounds
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore, TrunkTrainer, begun_with
from splitlearn.training.best import without_best
from splitlearn.wire import (
    Goodbye,
    Hidden,
    JobEnd,
    JobStatus,
    Outcome,
    Phase,
    Ready,
    RoundEnd,
    RoundSaved,
    StepVoid,
    TurnEnd,
    TurnResult,
    TurnStart,
)

Publish = Callable[[int, Path], Awaitable[None]]
"""Publishes a round's checkpoint folder; see :class:`TrunkParty`."""


@dataclass
class TrunkParty:
    """The worker that hosts one trunk, in one job.

    Attributes:
        spec: The job.
        trainer: The trunk.
        exchanges: The conversation with each silo that takes part, begun, by name. One of the roster that has
            none is lost: rounds are trained without it.
        compute: Where the trainer runs.
        checkpoints: Where its rounds are kept; None keeps none, and a restart begins anew.
        on_progress: Told of every round; called in the event loop, must not block.
        publish: Carries a round's checkpoint to where it outlives this machine, given the round and its
            folder. Goes on while the next round trains, and is awaited before any silo saves that one: no
            silo is ever more than one round ahead of what is published, and each keeps two.
        replica: Which of the job's trunks this is; 0 where there is one.
        peers: The others; None where there is one. With others, a round's checkpoint is what this
            replica contributes to the average of all, from which each goes on.
        stops_after_a_round: End once a round is committed; who hosts this replica next takes the average.
        is_asked_to_stop: Looked at after every round; True ends the party there, all silos told.
        last_round: The last round that every party has a checkpoint of, and that is published.
        is_over: Whether the job was led to its end.
        rounds: Which rounds were trained, and which of them the result is of.
    """

    spec: JobSpec
    trainer: TrunkTrainer
    exchanges: Mapping[str, Exchange]
    compute: ComputeThread
    checkpoints: CheckpointStore | None = None
    on_progress: OnProgress = ignore_progress
    publish: Publish | None = None
    replica: int = 0
    peers: Peers | None = None
    stops_after_a_round: bool = False
    is_asked_to_stop: Callable[[], bool] = lambda: False
    last_round: int = field(default=0, init=False)
    is_over: bool = field(default=False, init=False)
    rounds: WatchedRounds = field(init=False)
    _table: RoundTable = field(init=False)
    _publishing: asyncio.Task[None] | None = field(default=None, init=False)
    _begun: Mapping[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.rounds = WatchedRounds(self.spec)
        self._table = RoundTable(self.exchanges, patience_seconds=self.spec.patience_seconds)

    @property
    def _replica(self) -> int | None:
        return None if self.peers is None else self.replica

    @property
    def _roster(self) -> tuple[str, ...]:
        return tuple(silo.name for silo in self.spec.silos if silo.name in self.exchanges)

    async def run(self) -> None:
        """Lead the job to its end, or to the end of the round in which it is asked to stop.

        Raises:
            TrainingError: A silo left, or made no progress within patience.
            TrunklineError: A conversation or the disk failed. The silos are told that, not how.
        """
        async with self._table:
            try:
                await self._lead()
            except TrunklineError:
                await self._farewell(JobStatus.FAILED)
                raise
            except asyncio.CancelledError:
                await self._farewell(JobStatus.CANCELLED)
                raise
            finally:
                await self._drop_publishing()

    async def _lead(self) -> None:
        self.last_round = await self._begin()
        if self.last_round == 0 and evaluates_after(self.spec, 0):
            await self._evaluate_finished(0)
        await self._take_average(self.last_round)
        while not self.rounds.is_over:
            round_number = self.rounds.last_round + 1
            if self.is_asked_to_stop():
                await self._published()
                await self._farewell(JobStatus.CANCELLED)
                return
            for turn in turns_of_round(self.spec, round_number, replica=self.replica, present=self.exchanges):
                await self._train(turn)
                await self._average_after(turn)
            if self.peers is None and evaluates_after(self.spec, round_number):
                await self._evaluate(round_number)
            await self._commit(round_number)
            if self.stops_after_a_round:
                await self._published()
                await self._farewell(JobStatus.CANCELLED)
                return
            await self._take_average(round_number)
        await self._published()
        await self.compute(self.trainer.restore_best)
        end = JobEnd(status=JobStatus.COMPLETED, last_round=self.rounds.last_round)
        await self._table.send_all(self._roster, end)
        # Every party has saved the last round: a goodbye that gets lost takes nothing away from that.
        with contextlib.suppress(LinkError, TrainingError):
            await self._table.collect(self._roster, Goodbye)
        self.is_over = True
        self.on_progress(JobFinished(self._replica))

    async def _farewell(self, status: JobStatus) -> None:
        await dismiss(self.exchanges.values(), status)

    async def _begin(self) -> int:
        """Return the last round that every party has a checkpoint of, after going back to it."""
        ready = await self._table.collect(self._roster, Ready)
        own = self.checkpoints.last_round() if self.checkpoints else 0
        last_round = min([own, *(message.last_round for message in ready.values())])
        if self.stops_after_a_round and last_round < own:
            # What the other replicas contributed after that round may be gone, and this one trains but one.
            [first, *_] = [name for name, message in ready.items() if message.last_round == last_round]
            raise StorageError(
                f"silo {first!r} has no checkpoint after round {own}, only up to {last_round}, and replica "
                f"{self.replica} of the trunk is there; retry the job from an earlier round that is kept: "
                "trunkline jobs retry"
            )
        if last_round and self.checkpoints and self.peers is None:
            tensors = await asyncio.to_thread(self.checkpoints.load, last_round)
            rest = self.rounds.resume(tensors)
            await self.compute(self.trainer.load_state, rest)
        self.rounds.last_round = last_round
        return last_round

    async def _evaluate_finished(self, round_number: int) -> None:
        """Evaluate a round of which every party has saved what it needs; where it is the best, note that."""
        await self._evaluate(round_number)
        if self.rounds.is_best(round_number):
            await self._end_round(round_number)
            await self._all_have_saved(round_number)

    async def _commit(self, round_number: int) -> None:
        await self._published()
        await self._end_round(round_number)
        folder: Path | None = None
        if self.checkpoints is not None:
            folder = await self.compute(self.checkpoints.save, self._to_be_kept(), round_number=round_number)
        await self._all_have_saved(round_number)
        self.rounds.last_round = round_number
        self._begin_publishing(round_number, folder)
        self.on_progress(RoundFinished(round_number, self._replica, self.rounds.best_round))

    async def _end_round(self, round_number: int) -> None:
        is_best = self.rounds.is_best(round_number)
        await self._table.send_all(self._roster, RoundEnd(round=round_number, is_best=is_best))
        if is_best:
            await self.compute(self.trainer.keep_best, round_number)

    async def _all_have_saved(self, round_number: int) -> None:
        saved = await self._table.collect(self._roster, RoundSaved)
        wrong = [name for name, message in saved.items() if message.round != round_number]
        if wrong:
            raise ProtocolError(f"silo {wrong[0]!r} saved another round than {round_number}")

    def _to_be_kept(self) -> Mapping[str, Tensor]:
        if self.peers is None:
            return {**self.trainer.state(), **self.rounds.state()}
        told = self._begun if self.peers.at_hand is None else self.rounds.state()
        return {**self.trainer.contribution(), **told}

    async def _take_average(self, round_number: int) -> None:
        """Go on from the average of all replicas after a round, once they have committed it."""
        if self.peers is None or round_number == 0:
            return
        state = self.rounds.resume(await self.peers.state_after(round_number))
        if self.peers.at_hand is None and not self.rounds.is_over:
            state = without_best(state)  # the meetings hold it until the job's end
        await self.compute(self.trainer.load_state, state)
        is_evaluated = self.peers.at_hand is None and self.spec.meeting_evaluates
        if evaluates_after(self.spec, round_number) and not is_evaluated:
            await self._evaluate_finished(round_number)

    def _begin_publishing(self, round_number: int, folder: Path | None) -> None:
        if self.publish is None or folder is None:
            self.last_round = round_number
            return
        self._publishing = asyncio.create_task(
            self._publish(self.publish, round_number, folder), name=f"publish round {round_number}"
        )

    async def _publish(self, publish: Publish, round_number: int, folder: Path) -> None:
        await publish(round_number, folder)
        self.last_round = round_number

    async def _published(self) -> None:
        if self._publishing is not None:
            await self._publishing
            self._publishing = None

    async def _drop_publishing(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)

    # Training

    async def _train(self, turn: Turn) -> None:
        start = TurnStart(
            phase=Phase.TRAIN, round=turn.round, first_step=turn.first_step, num_steps=turn.num_steps
        )
        started = began = time.perf_counter()
        busy = self.compute.busy_seconds
        await self._table.send_all(turn.silos, start)
        unsettled = False
        for number in range(turn.first_step, turn.first_step + turn.num_steps):
            step = TrunkStep(self.spec, turn, number)
            await self._gather_first(step, unsettled=unsettled)
            await self._pass_the_trunk(step)
            unsettled = True
            began, busy = self._report(turn, step, began, busy)
        await self._end_turn(turn)
        seconds = time.perf_counter() - started
        self.on_progress(TurnFinished(turn.silos, turn.round, turn.num_steps, seconds))

    def _report(self, turn: Turn, step: TrunkStep, began: float, busy: float) -> tuple[float, float]:
        """Tell of a step; return the moment and the computing so far, from which the next one counts."""
        now, busy_now = time.perf_counter(), self.compute.busy_seconds
        self.on_progress(
            TrunkStepped(turn.round, step.number, step.num_label_tokens, now - began, busy_now - busy)
        )
        return now, busy_now

    async def _gather_first(self, step: TrunkStep, *, unsettled: bool) -> None:
        """Wait for every silo's first activations, and settle the step before with what rides on them."""
        await self._gather_activations(step)
        if unsettled and await self._settle(step.outcomes()):
            step.restart()
            await self._table.send_all(step.silos, StepVoid(step=step.number))
            await self._gather_activations(step)
        await self.compute(self.trainer.begin_step, step.number, num_label_tokens=step.num_label_tokens)

    async def _gather_activations(self, step: TrunkStep) -> None:
        while not step.is_begun:
            name, message = await self._table.next(step.missing)
            step.take(name, message)

    async def _settle(self, outcomes: list[Outcome]) -> bool:
        """Finish a step; True when silos may have taken it that must not have."""
        applied = await self.compute(self.trainer.finish_step, outcomes)
        has_steps_to_undo = len(self.spec.silos) > 1 and self.spec.silo_blocks != "frozen"
        return (
            not applied
            and has_steps_to_undo
            and self.trainer.outcome().finite
            and any(not outcome.finite for outcome in outcomes)
        )

    async def _pass_the_trunk(self, step: TrunkStep) -> None:
        while not step.is_done:
            if step.next_backward is not None:  # first, because it frees memory
                await self._backward(step, step.next_backward)
            elif step.next_forward is not None:
                await self._forward(step, step.next_forward)
            else:
                name, message = await self._table.next(step.missing)
                step.take(name, message)

    async def _forward(self, step: TrunkStep, micro_batch: int) -> None:
        parts = step.parts(micro_batch)
        hiddens = await self.compute(self.trainer.forward, parts, step.key(micro_batch))
        step.forwarded()
        exponent = self.trainer.loss_scale_exponent
        for name, hidden_ND in zip(step.silos, hiddens, strict=True):
            hidden = to_array(hidden_ND)
            await self._table.send(
                name, Hidden(micro_batch=micro_batch, loss_scale_exponent=exponent, hidden=hidden)
            )

    async def _backward(self, step: TrunkStep, micro_batch: int) -> None:
        grads = await self.compute(
            self.trainer.backward, micro_batch, step.grads(micro_batch), weights=step.weights()
        )
        step.backwarded()
        outcome = await self.compute(self.trainer.outcome) if step.is_done else None
        for name, grad_ND in zip(step.silos, grads, strict=True):
            await self._table.send(name, step.answer(micro_batch, grad_ND, outcome))

    async def _end_turn(self, turn: Turn) -> None:
        ends = await self._table.collect(turn.silos, TurnEnd)
        outcomes = [end.outcome for end in ends.values()]
        if any(outcome is None for outcome in outcomes):
            raise ProtocolError("a silo ended its turn without the outcome of its last step")
        voided = await self._settle([outcome for outcome in outcomes if outcome is not None])
        await self._table.send_all(turn.silos, TurnResult(voided=voided))

    async def _average_after(self, turn: Turn) -> None:
        step = averages_after(self.spec, turn)
        if step is None:
            return
        if self.peers is None:
            summed: BlocksAveraged | None = await average_at_trunk(
                self._table, self._roster, round_number=turn.round, step=step
            )
        elif self.peers.at_hand is None:
            return
        else:
            summed = await self.peers.at_hand.sum_blocks(self._table, round_number=turn.round, step=step)
        if summed is not None:
            self.on_progress(summed)

    # Evaluation

    async def _evaluate(self, round_number: int) -> None:
        losses = await evaluate_at_trunk(
            self._table,
            self._roster,
            spec=self.spec,
            trainer=self.trainer,
            compute=self.compute,
            round_number=round_number,
        )
        if self.peers is None or not self.spec.evaluation.watches:
            self.rounds.evaluated(round_number, losses)
        elif self.peers.at_hand is None:
            self._begun = begun_with(losses, [silo.name for silo in self.spec.silos])
        else:
            told = await self.peers.at_hand.losses_of_all(round_number, losses)
            self.rounds.evaluated(round_number, told)
