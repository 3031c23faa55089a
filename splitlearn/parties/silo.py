"""A silo's part in a job: it follows the trunk's lead, and decides what leaves.

Free of sockets and files: tensors are computed by the trainer, messages carried by the exchange.
"""

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass, field

from splitlearn.errors import LocalProtocolError, ProtocolError, TrainingError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.generation import SiloSummaries
from splitlearn.parties.averaging import SiloAveraging
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.crossing import to_array, to_padding_side, to_tensor
from splitlearn.parties.evaluating import SiloEvaluation, refuse_unasked_best
from splitlearn.parties.leaving import take_leave
from splitlearn.parties.plan import evaluates_finished
from splitlearn.parties.progress import OnProgress, StepDone, TurnStarted, ignore_progress
from splitlearn.parties.summarising import phases_of
from splitlearn.protocol import PhaseRefusedError
from splitlearn.spec import JobSpec
from splitlearn.tasks import BatchPlan, EvaluationPlan, TokenBatch
from splitlearn.training import CheckpointStore, SiloTrainer, StepKey
from splitlearn.wire import (
    Activations,
    Goodbye,
    GoodbyeReason,
    GradActivations,
    GradHidden,
    Hidden,
    JobEnd,
    JobStatus,
    Message,
    Outcome,
    Phase,
    Ready,
    Refusal,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumStart,
    TurnEnd,
    TurnResult,
    TurnStart,
)

_MICRO_BATCHES_AHEAD = 2  # one at the trunk while the next is on its way


class _SittingIsOverError(Exception):
    """The trunk of a replica ended after a round: whoever hosts it next goes on."""


class _StepIsVoidError(Exception):
    """The trunk declared the previous step void."""


@dataclass
class _Step:
    """One training step under way."""

    number: int
    batches: list[TokenBatch]
    keys: list[StepKey]
    num_sent: int = 0
    loss_sum: float = 0.0
    trunk_outcome: Outcome | None = None

    @property
    def num_label_tokens(self) -> int:
        return sum(batch.num_label_tokens for batch in self.batches)

    @property
    def num_rows(self) -> int:
        return sum(len(batch.layout.lengths) for batch in self.batches)


@dataclass
class _Totals:
    """What a turn came to."""

    loss_sum: float = 0.0
    num_tokens: int = 0


@dataclass
class SiloParty:
    """One silo in one job.

    Attributes:
        spec: The job.
        silo: This silo's name in the roster.
        trainer: Its blocks.
        training: Its training batches.
        evaluation: Its held-out batches.
        exchange: The conversation with the trunk's worker, begun.
        compute: Where the trainer runs.
        checkpoints: Where its rounds are kept; None keeps none, and a restart begins anew.
        begins_from: Where the rounds are that later ones begin from, where these are others than it keeps:
            their blocks were averaged meanwhile. None for its own.
        on_progress: Told of every turn, step and evaluation; called in the event loop, must not block.
        summaries: Generates summaries of the held-out rows and scores them; None where the job asks for none.
        averaging: Takes part in the secure sums of this silo's blocks; None refuses every sum.
        says_goodbye: Whether a cancelled party takes its leave, which ends the job at the trunk. One that
            will be back says nothing: the trunk waits for it.
        min_metric_rows: Losses over fewer rows are not told to the trunk: 0 stands in their place.
    """

    spec: JobSpec
    silo: str
    trainer: SiloTrainer
    training: BatchPlan
    evaluation: EvaluationPlan
    exchange: Exchange
    compute: ComputeThread
    checkpoints: CheckpointStore | None = None
    begins_from: CheckpointStore | None = None
    on_progress: OnProgress = ignore_progress
    averaging: SiloAveraging | None = None
    summaries: SiloSummaries | None = None
    says_goodbye: bool = True
    min_metric_rows: int = 1
    _state_round: int = field(default=0, init=False)
    _steps_in_round: int = field(default=0, init=False)
    _has_just_saved: bool = field(default=False, init=False)
    _held_out: SiloEvaluation = field(init=False)

    def __post_init__(self) -> None:
        self._held_out = SiloEvaluation(
            silo=self.silo,
            trainer=self.trainer,
            plan=self.evaluation,
            compute=self.compute,
            on_progress=self.on_progress,
            summaries=self.summaries,
            min_metric_rows=self.min_metric_rows,
        )

    async def run(self) -> None:
        """Take part until the trunk ends the job; of a replica, until it ends after a round.

        Raises:
            TrainingError: The trunk ended the job before its end.
            TrunklineError: The conversation, the data or the disk failed; the trunk is told that, not how.
        """
        try:
            with contextlib.suppress(_SittingIsOverError):
                await self._follow()
        except TrunklineError:
            await take_leave(self.exchange, GoodbyeReason.FAILED)
            raise
        except asyncio.CancelledError:
            if self.says_goodbye:
                await take_leave(self.exchange, GoodbyeReason.CANCELLED)
            raise

    @property
    def _kept(self) -> CheckpointStore | None:
        return self.begins_from or self.checkpoints

    async def _follow(self) -> None:
        last_round = self._kept.last_round() if self._kept else 0
        await self._send(Ready(last_round=last_round, served=phases_of(self.spec)))
        while True:
            message = await self._receive()
            match message:
                case TurnStart():
                    await self._take_turn(message)
                case SumStart():
                    await self._average(message)
                case RoundEnd():
                    await self._save(message)
                case JobEnd():
                    last_round = message.last_round or self.spec.rounds
                    await self._go_to_round(last_round + 1)  # where it was resumed with nothing to do
                    await self.compute(self.trainer.restore_best)
                    await self.exchange.send(Goodbye(reason=GoodbyeReason.FINISHED))
                    await self.exchange.flushed()
                    return
                case _:
                    raise _unexpected(message)

    async def _send(self, message: Message) -> None:
        try:
            await self.exchange.send(message)
        except LocalProtocolError:
            await self._learn_why_not()
            raise

    async def _learn_why_not(self) -> None:
        """While we computed, the trunk may have ended the job or declared the step void."""
        while self.exchange.has_received:
            message = await self._receive()
            if isinstance(message, StepVoid):
                raise _StepIsVoidError
            if isinstance(message, JobEnd):
                raise _unexpected(message)

    async def _receive(self) -> Message:
        message = (await self.exchange.receive()).message
        if isinstance(message, JobEnd) and message.status is not JobStatus.COMPLETED:
            if message.status is JobStatus.CANCELLED and self._has_just_saved:
                raise _SittingIsOverError
            raise TrainingError(
                f"the trunk's worker {self.exchange.peer} ended the job as {message.status.name.lower()} "
                f"in round {self._state_round + 1}; its log says why"
            )
        if isinstance(message, Refusal):
            raise PhaseRefusedError(f"{self.exchange.peer} refused: {message.code.name.lower()}")
        return message

    async def _take_turn(self, turn: TurnStart) -> None:
        self._has_just_saved = False
        is_finished = turn.phase is not Phase.TRAIN and evaluates_finished(self.spec, turn.round)
        await self._go_to_round(turn.round + is_finished)
        self.on_progress(TurnStarted(self.silo, turn.phase, turn.round, turn.first_step, turn.num_steps))
        match turn.phase:
            case Phase.TRAIN:
                await self._train(turn)
            case Phase.EVAL | Phase.GENERATE:
                await self._held_out.run(turn, send=self._send, receive=self._receive)

    async def _go_to_round(self, round_number: int) -> None:
        """Be as before a round, which is as after the one before."""
        if round_number == self._state_round + 1:
            return
        if self._kept is None or round_number < 1:
            raise ProtocolError(
                f"the trunk began round {round_number}, this silo is at round {self._state_round + 1} "
                "and keeps no checkpoints"
            )
        tensors = await asyncio.to_thread(self._kept.load, round_number - 1)
        await self.compute(self.trainer.load_state, tensors)
        self._state_round, self._steps_in_round = round_number - 1, 0

    async def _save(self, message: RoundEnd) -> None:
        round_number = message.round
        if message.is_best:
            refuse_unasked_best(self.spec, round_number)
            await self.compute(self.trainer.keep_best, round_number)
        # What the job begins with needs no checkpoint to begin with again.
        if self.checkpoints is not None and round_number > 0:
            await self.compute(self.checkpoints.save, self.trainer.state(), round_number=round_number)
        self._state_round, self._steps_in_round = round_number, 0
        self._has_just_saved = evaluates_finished(self.spec, round_number) and round_number > 0
        await self._send(RoundSaved(round=round_number))

    async def _average(self, start: SumStart) -> None:
        here = (self._state_round + 1, self._steps_in_round)
        if self.averaging is None or (start.round, start.step) != here:
            raise ProtocolError(
                f"the trunk asks for a sum of the silos' blocks in round {start.round} after {start.step} "
                f"steps; this silo is in round {here[0]} after {here[1]}, and its blocks are "
                f"{self.spec.silo_blocks}"
            )
        await self.averaging.run(start, send=self._send, receive=self._receive)

    # Training

    async def _train(self, turn: TurnStart) -> None:
        totals = _Totals()
        outcome: Outcome | None = None
        for number in range(turn.first_step, turn.first_step + turn.num_steps):
            started, busy = time.perf_counter(), self.compute.busy_seconds
            step = await self._step(turn, number, outcome)
            assert step.trunk_outcome is not None
            applied = await self.compute(self.trainer.finish_step, step.trunk_outcome)
            outcome = self.trainer.outcome()
            totals.loss_sum += step.loss_sum if self._tells(step) else 0.0
            totals.num_tokens += step.num_label_tokens
            self._steps_in_round += 1
            self._report(
                turn,
                step,
                applied=applied,
                seconds=time.perf_counter() - started,
                compute_seconds=self.compute.busy_seconds - busy,
            )
        await self._end_turn(totals, outcome)

    async def _end_turn(self, totals: _Totals, outcome: Outcome | None) -> None:
        end = TurnEnd(outcome=outcome, loss_sum=totals.loss_sum, num_tokens=totals.num_tokens)
        await self._send(end)
        message = await self._receive()
        if not isinstance(message, TurnResult):
            raise _unexpected(message)
        if message.voided:
            await self.compute(self.trainer.undo_step)

    async def _step(self, turn: TurnStart, number: int, outcome: Outcome | None) -> _Step:
        while True:
            step = await self.compute(self._begin, turn, number)
            try:
                await self._pass_the_cut(step, outcome)
            except _StepIsVoidError:
                await self.compute(self.trainer.undo_step)
                outcome = None  # the trunk has it
            else:
                return step

    def _begin(self, turn: TurnStart, number: int) -> _Step:
        own_step = (turn.round - 1) * self.spec.steps_per_round + self._steps_in_round
        micro_batches = range(self.spec.accumulation_steps)
        first = own_step * self.spec.accumulation_steps
        step = _Step(
            number,
            [self.training.batch(first + micro_batch) for micro_batch in micro_batches],
            [StepKey(self.spec.seed, turn.round, number, micro_batch) for micro_batch in micro_batches],
        )
        self.trainer.begin_step(number, num_label_tokens=step.num_label_tokens)
        return step

    async def _pass_the_cut(self, step: _Step, outcome: Outcome | None) -> None:
        await self._send_activations(step, outcome)
        while step.num_sent < min(_MICRO_BATCHES_AHEAD, len(step.batches)):
            await self._send_activations(step, None)
        while step.trunk_outcome is None:
            message = await self._receive()
            match message:
                case Hidden():
                    await self._answer_hidden(step, message)
                case GradActivations():
                    grad_ND = None if message.grad is None else to_tensor(message.grad)
                    await self.compute(self.trainer.bottom_backward, message.micro_batch, grad_ND)
                    step.trunk_outcome = self._outcome_of(step, message)
                case StepVoid():
                    raise _StepIsVoidError
                case _:
                    raise _unexpected(message)

    def _outcome_of(self, step: _Step, message: GradActivations) -> Outcome | None:
        is_last = message.micro_batch == len(step.batches) - 1
        if is_last is (message.outcome is None):
            raise ProtocolError(
                "a step's outcome rides on the gradient of its last micro-batch, and only there"
            )
        return message.outcome

    async def _send_activations(self, step: _Step, outcome: Outcome | None) -> None:
        index = step.num_sent
        step.num_sent += 1
        batch = step.batches[index]
        hidden_ND = await self.compute(self.trainer.bottom_forward, batch, step.keys[index])
        await self._send(
            Activations(
                phase=Phase.TRAIN,
                micro_batch=index,
                num_micro_batches=len(step.batches),
                lengths=batch.layout.lengths,
                padding_side=to_padding_side(batch.layout),
                num_label_tokens=step.num_label_tokens,
                outcome=outcome,
                hidden=to_array(hidden_ND),
            )
        )

    async def _answer_hidden(self, step: _Step, message: Hidden) -> None:
        index = message.micro_batch
        loss_sum, grad_ND = await self.compute(
            self.trainer.top_loss_and_grad,
            to_tensor(message.hidden),
            step.batches[index],
            step.keys[index],
            loss_scale_exponent=message.loss_scale_exponent,
        )
        step.loss_sum += loss_sum
        told = loss_sum if self._tells(step) else 0.0
        await self._send(GradHidden(micro_batch=index, loss_sum=told, grad=to_array(grad_ND)))
        if step.num_sent < len(step.batches):
            await self._send_activations(step, None)

    def _report(
        self, turn: TurnStart, step: _Step, *, applied: bool, seconds: float, compute_seconds: float
    ) -> None:
        num_label_tokens = step.num_label_tokens
        self.on_progress(
            StepDone(
                silo=self.silo,
                round=turn.round,
                step=step.number,
                loss=step.loss_sum / num_label_tokens if num_label_tokens else math.nan,
                num_label_tokens=num_label_tokens,
                num_valid_tokens=sum(batch.layout.num_valid for batch in step.batches),
                applied=applied,
                seconds=seconds,
                compute_seconds=compute_seconds,
                num_rows=step.num_rows,
            )
        )

    def _tells(self, step: _Step) -> bool:
        return step.num_rows >= self.min_metric_rows


def _unexpected(message: Message) -> ProtocolError:
    return ProtocolError(f"a {type(message).__name__} message where none was awaited")
