"""A gradient that is not finite, anywhere, skips the step everywhere; all parties stay together."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.link import Connect, Link
from splitlearn.parties import StepDone
from splitlearn.simulation.federation import Lines
from splitlearn.training import SiloTrainer, TrunkTrainer
from tests.integration.conftest import LORA, Heard, Job, NewJob, assert_same, silo_rows

NUM_STEPS = 4


class PoisonedSilo(SiloTrainer):
    """At one step the gradients of this silo's bottom, and only they, come out infinite."""

    victim, at_step = "b", -1

    def begin_step(self, step: int, *, num_label_tokens: int) -> None:
        self._is_poisoned = self._silo == self.victim and step == self.at_step
        super().begin_step(step, num_label_tokens=num_label_tokens)

    def bottom_backward(self, micro_batch: int, grad_ND: Tensor | None) -> None:
        super().bottom_backward(micro_batch, grad_ND)
        if self._is_poisoned:
            for _, parameter in self._blocks.bottom.trainable:
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)


class PoisonedTrunk(TrunkTrainer):
    """At one step the trunk's own gradients come out infinite: every silo learns it before it steps."""

    at_step = -1

    def begin_step(self, step: int, *, num_label_tokens: int) -> None:
        self._is_poisoned = step == self.at_step
        super().begin_step(step, num_label_tokens=num_label_tokens)

    def backward(
        self, micro_batch: int, grads: Sequence[Tensor], *, weights: Sequence[float]
    ) -> list[Tensor | None]:
        answers = super().backward(micro_batch, grads, weights=weights)
        if self._is_poisoned:
            for _, parameter in self._segment.trainable:
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)
        return answers


class JitteryLines(Lines):
    """Silo b is slow and irregular, so that the others are ahead when a step is declared void."""

    def answer(self, name: str) -> Connect:
        inner, chance = super().answer(name), random.Random(name)

        async def connect() -> Link:
            return _Jittery(await inner(), chance) if name == "b" else await inner()

        return connect


class _Jittery:
    def __init__(self, inner: Link, chance: random.Random) -> None:
        self._inner, self._chance = inner, chance

    async def send(self, frame: Any) -> None:
        await self._inner.send(frame)

    async def receive(self) -> Any:
        frame = await self._inner.receive()
        await asyncio.sleep(self._chance.choice([0.0, 0.02]))
        return frame

    async def close(self) -> None:
        await self._inner.close()


def prepare(new_job: NewJob, **fields: Any) -> Job:
    shape: dict[str, Any] = {"rounds": 1, "steps_per_round": NUM_STEPS, "batch_size": 2}
    return new_job("llama", *(silo_rows(name) for name in "abc"), **{**shape, **fields})


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "within-a-turn": (1, {}),
    "at-its-end": (NUM_STEPS - 1, {}),
    "with-micro-batches-ahead": (1, {"accumulation_steps": 3}),
    "lora-sgd": (2, {"adapter": LORA, "optimizer": {"kind": "sgd", "momentum": 0.9}}),
    "fp16": (1, {"precision": "fp16"}),
}


class TestOneSilosGradient:
    @pytest.mark.parametrize("case", CASES)
    def test_skips_the_step_at_every_party(
        self, case: str, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What one silo finds out alone leaves the same behind as what everybody is told in time."""
        step, fields = CASES[case]
        monkeypatch.setattr("splitlearn.simulation.federation.SiloTrainer", PoisonedSilo)
        monkeypatch.setattr("splitlearn.simulation.trunk_side.TrunkTrainer", PoisonedTrunk)

        monkeypatch.setattr(PoisonedSilo, "at_step", step)
        undone, heard_undone = prepare(new_job, **fields), Heard(StepDone)
        undone.run(make_lines=JitteryLines, on_progress=heard_undone)
        monkeypatch.setattr(PoisonedSilo, "at_step", -1)
        monkeypatch.setattr(PoisonedTrunk, "at_step", step)
        skipped, heard_skipped = prepare(new_job, **fields), Heard(StepDone)
        skipped.run(on_progress=heard_skipped)

        assert_same(undone.everything(), skipped.everything())
        assert all(bool(torch.isfinite(value).all()) for value in undone.everything().values())
        assert not_taken(heard_undone) == {("b", step)}
        assert not_taken(heard_skipped) == {("a", step), ("b", step), ("c", step)}


def not_taken(heard: Heard) -> set[tuple[str, int]]:
    """Which silo did not take which step; each step is reported once, void or not."""
    times = Counter((report.silo, report.step) for report in heard.reports)
    assert times == {(silo, number): 1 for silo in "abc" for number in range(NUM_STEPS)}
    return {(report.silo, report.step) for report in heard.reports if not report.applied}
