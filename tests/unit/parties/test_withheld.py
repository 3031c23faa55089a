"""A silo that withholds numbers of few rows: its conversation goes on, and no loss of them is in it."""

import asyncio
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from splitlearn.errors import TrainingError
from splitlearn.exchange import Exchange
from splitlearn.parties import ComputeThread, Evaluated, Progress, SiloParty, StepDone
from splitlearn.tasks import BatchPlan, EvaluationPlan, Example, RowScore, TokenBatch, TokenRow
from splitlearn.training import SiloTrainer
from splitlearn.wire import (
    Activations,
    GradActivations,
    GradHidden,
    Hidden,
    JobEnd,
    JobStatus,
    Message,
    Phase,
    Ready,
    TurnEnd,
    TurnResult,
    TurnStart,
)
from tests.unit.parties.conftest import HIDDEN, job, meeting, outcome

ROW = TokenRow((3, 4, 5), (3, 4, 5))
NUM_ROWS = 2


class PlainTrainer:
    """Finds every loss to be 1.5, every row to have 2 tokens of log-likelihood -1."""

    def begin_step(self, step: int, **_: int) -> None:
        pass

    def bottom_forward(self, batch: TokenBatch, _: Any) -> Tensor:
        return torch.zeros(batch.layout.num_valid, HIDDEN)

    def top_loss_and_grad(self, hidden_ND: Tensor, *_: Any, **__: Any) -> tuple[float, Tensor]:
        return 1.5, torch.ones_like(hidden_ND)

    def bottom_backward(self, *_: Any) -> None:
        pass

    def finish_step(self, _: Any) -> bool:
        return True

    def outcome(self) -> Any:
        return outcome()

    def evaluate_bottom(self, batch: TokenBatch) -> Tensor:
        return torch.zeros(batch.layout.num_valid, HIDDEN)

    def evaluate(self, _: Tensor, batch: TokenBatch) -> list[RowScore]:
        return [RowScore(-1.0, 2)] * len(batch.layout.lengths)


async def next_of(exchange: Exchange, kind: type[Message]) -> Any:
    while not isinstance(message := (await exchange.receive()).message, kind):
        pass
    return message


async def told(phase: Phase, *, min_metric_rows: int) -> tuple[list[Any], list[Progress]]:
    """Lead a silo through one turn; return what it said that may hold a loss, and what it told at home."""
    said, progress = [], list[Progress]()
    async with meeting("a") as (silos, trunk), ComputeThread("silo a") as compute:
        party = SiloParty(
            spec=job("a"),
            silo="a",
            trainer=cast("SiloTrainer", PlainTrainer()),
            training=BatchPlan([ROW], batch_size=NUM_ROWS, seed=0, silo_name="a", pad_token_id=0),
            evaluation=EvaluationPlan([Example((ROW,), 0, b"")] * NUM_ROWS, batch_size=2, pad_token_id=0),
            exchange=silos["a"],
            compute=compute,
            on_progress=progress.append,
            min_metric_rows=min_metric_rows,
        )

        async def lead() -> None:
            worker = trunk["a"]
            await next_of(worker, Ready)
            await worker.send(TurnStart(phase=phase, round=1, first_step=0, num_steps=1))
            sent = await next_of(worker, Activations)
            await worker.send(Hidden(micro_batch=0, hidden=sent.hidden))
            if phase is Phase.TRAIN:
                said.append(await next_of(worker, GradHidden))
                await worker.send(GradActivations(micro_batch=0, outcome=outcome(), grad=sent.hidden))
            said.append(await next_of(worker, TurnEnd))
            await worker.send(TurnResult(voided=False))
            await worker.send(JobEnd(status=JobStatus.CANCELLED))

        running = asyncio.create_task(party.run())
        await lead()
        [error] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(error, TrainingError)  # the turn was all there was to the job
    return said, progress


def outcome_of(phase: Phase, *, min_metric_rows: int) -> tuple[list[Any], list[Progress]]:
    return asyncio.run(asyncio.wait_for(told(phase, min_metric_rows=min_metric_rows), timeout=30))


@pytest.mark.parametrize("phase", [Phase.TRAIN, Phase.EVAL])
class TestTrunk:
    def test_is_told_the_loss_of_enough_rows(self, phase: Phase) -> None:
        said, _ = outcome_of(phase, min_metric_rows=NUM_ROWS)
        assert all(message.loss_sum > 0 for message in said)

    def test_is_told_no_loss_of_fewer(self, phase: Phase) -> None:
        said, _ = outcome_of(phase, min_metric_rows=NUM_ROWS + 1)
        assert [message.loss_sum for message in said] == [0.0] * len(said)


class TestAtHome:
    def test_the_silo_itself_knows_its_losses(self) -> None:
        for phase, kind in ((Phase.TRAIN, StepDone), (Phase.EVAL, Evaluated)):
            _, progress = outcome_of(phase, min_metric_rows=99)
            [found] = [event for event in progress if isinstance(event, kind)]
            assert isinstance(found, StepDone | Evaluated)
            assert (found.loss > 0, found.num_rows) == (True, NUM_ROWS)
