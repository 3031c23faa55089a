"""Evaluation of held-out rows, as both parties do it: turns without a gradient, led by who has the trunk."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from splitlearn.errors import ProtocolError
from splitlearn.generation import SiloSummaries, metrics_of
from splitlearn.parties.averaging import Receive, Send
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.crossing import to_array, to_layout, to_padding_side, to_tensor
from splitlearn.parties.progress import Evaluated, OnProgress
from splitlearn.parties.round_table import RoundTable, unexpected
from splitlearn.parties.summarising import generate_at_trunk
from splitlearn.spec import JobSpec
from splitlearn.tasks import EvaluationPlan, LossSum, RowScore
from splitlearn.training import SiloTrainer, TrunkPart, TrunkTrainer
from splitlearn.wire import Activations, Hidden, Message, Phase, TurnEnd, TurnResult, TurnStart

_BATCHES_AHEAD = 2  # one at the trunk while the next is on its way


@dataclass
class SiloEvaluation:
    """A silo's part in the evaluations of its job.

    Attributes:
        silo: Its name in the roster.
        trainer: Its blocks.
        plan: Its held-out batches.
        compute: Where the trainer runs.
        on_progress: Told of every evaluation, once its texts are scored too; must not block.
        summaries: Generates summaries of the held-out rows and scores them; None where the job asks for none.
        min_metric_rows: A loss over fewer rows is not told to the trunk: 0 stands in its place.
    """

    silo: str
    trainer: SiloTrainer
    plan: EvaluationPlan
    compute: ComputeThread
    on_progress: OnProgress
    summaries: SiloSummaries | None = None
    min_metric_rows: int = 1
    _awaits_summaries: Evaluated | None = field(default=None, init=False)

    async def run(self, turn: TurnStart, *, send: Send, receive: Receive) -> None:
        """Take one turn, evaluating or generating, with the blocks as they are.

        Raises:
            ProtocolError: The trunk broke the turn's rules.
        """
        if turn.phase is Phase.GENERATE:
            await self._summarise(send, receive)
        else:
            await self._evaluate(turn, send, receive)

    async def _evaluate(self, turn: TurnStart, send: Send, receive: Receive) -> None:
        num_batches = self.plan.num_batches
        scores: list[RowScore] = []
        for index in range(min(_BATCHES_AHEAD, num_batches)):
            await self._send(index, send)
        for index in range(num_batches):
            message = await receive()
            if not isinstance(message, Hidden):
                raise _unawaited(message)
            batch = self.plan.batch(index)
            scores += await self.compute(self.trainer.evaluate, to_tensor(message.hidden), batch)
            if index + _BATCHES_AHEAD < num_batches:
                await self._send(index + _BATCHES_AHEAD, send)
        await self._tell(turn, scores, send, receive)

    async def _send(self, index: int, send: Send) -> None:
        batch = self.plan.batch(index)
        hidden_ND = await self.compute(self.trainer.evaluate_bottom, batch)
        await send(
            Activations(
                phase=Phase.EVAL,
                micro_batch=index,
                num_micro_batches=self.plan.num_batches,
                lengths=batch.layout.lengths,
                padding_side=to_padding_side(batch.layout),
                num_label_tokens=batch.num_label_tokens,
                outcome=None,
                hidden=to_array(hidden_ND),
            )
        )

    async def _tell(self, turn: TurnStart, scores: Sequence[RowScore], send: Send, receive: Receive) -> None:
        result = self.plan.result(scores)
        tells = result.num_examples >= self.min_metric_rows
        await _end_turn(result.loss if tells else LossSum(0.0, 0), send, receive)
        evaluated = Evaluated(
            self.silo,
            turn.round,
            result.loss.mean,
            result.loss.num_tokens,
            result.accuracy,
            scores=result.scores,
            num_rows=result.num_examples,
        )
        if self.summaries is None:
            self.on_progress(evaluated)
        else:
            self._awaits_summaries = evaluated

    async def _summarise(self, send: Send, receive: Receive) -> None:
        if self.summaries is None or self._awaits_summaries is None:
            raise ProtocolError("the trunk began to generate where no evaluation awaits summaries")
        scores = await self.summaries.run(send=send, receive=receive)
        await _end_turn(LossSum(0.0, 0), send, receive)
        evaluated, self._awaits_summaries = self._awaits_summaries, None
        self.on_progress(replace(evaluated, scores=(*evaluated.scores, *scores)))


async def _end_turn(loss: LossSum, send: Send, receive: Receive) -> None:
    await send(TurnEnd(outcome=None, loss_sum=loss.loss_sum, num_tokens=loss.num_tokens))
    message = await receive()
    if not isinstance(message, TurnResult):
        raise _unawaited(message)


def _unawaited(message: Message) -> ProtocolError:
    return ProtocolError(f"a {type(message).__name__} message where none was awaited")


def refuse_unasked_best(spec: JobSpec, round_number: int) -> None:
    """Refuse to take a round for the best where the job does not keep it.

    Raises:
        ProtocolError: The worker broke the specification.
    """
    if not spec.evaluation.keep_best:
        raise ProtocolError(
            f"the trunk calls round {round_number} the best; the specification does not ask for it "
            "(keep_best)"
        )


async def evaluate_at_trunk(
    table: RoundTable,
    names: Sequence[str],
    *,
    spec: JobSpec,
    trainer: TrunkTrainer,
    compute: ComputeThread,
    round_number: int,
) -> dict[str, LossSum]:
    """Lead one evaluation, and the generating turns after it where the job scores texts.

    Args:
        table: The conversations.
        names: The silos, in the job's order.
        spec: The job.
        trainer: The trunk.
        compute: Where it is computed.
        round_number: The round that is evaluated; 0 for what the job begins with.

    Returns:
        The loss over each silo's held-out rows, by name; of no tokens where a silo keeps its own to itself.

    Raises:
        TrainingError: A silo left, or made no progress within patience.
        ProtocolError: A silo broke the turn's rules.
    """
    start = TurnStart(phase=Phase.EVAL, round=round_number, first_step=0, num_steps=0)
    await table.send_all(names, start)
    unfinished, losses = set(names), dict[str, LossSum]()
    while unfinished:
        name, message = await table.next(frozenset(unfinished))
        match message:
            case Activations():
                layout = to_layout(message, max_rows=spec.evaluation.batch_size, max_tokens=spec.max_tokens)
                part = TrunkPart(layout, to_tensor(message.hidden))
                hidden = to_array(await compute(trainer.evaluate, part))
                await table.send(name, Hidden(micro_batch=message.micro_batch, hidden=hidden))
            case TurnEnd():
                losses[name] = LossSum(message.loss_sum, message.num_tokens)
                await table.send(name, TurnResult(voided=False))
                unfinished.discard(name)
            case _:
                raise unexpected(name, message)
    if metrics_of(spec.task):
        await generate_at_trunk(
            table,
            names,
            trunk=trainer.segment,
            compute=compute,
            round_number=round_number,
            precision=spec.precision,
        )
    return losses
