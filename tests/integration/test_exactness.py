"""Split training through protocol and sealed channel equals training the uncut model.

One silo: bit for bit, over 20 steps, every loss and every trained tensor. Preconditions (decision 5):
fp32 on a CPU, one thread on both sides, fp32 on the wire, the same batch layout, no accumulation.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from splitlearn.link import Connect, Link
from splitlearn.parties import StepDone
from splitlearn.partition import ModelFolder, load_trunk
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.federation import Lines
from splitlearn.tasks import BatchPlan
from tests.integration.conftest import LORA, Heard, Job, NewJob, assert_same, silo_rows

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {"max_grad_norm": 0.5}),
    "full-unclipped": ("llama", {"max_grad_norm": None}),
    "full-tied": ("llama-tied", {"max_grad_norm": 0.5}),
    "full-tied-unclipped": ("llama-tied", {"max_grad_norm": None}),
    "full-frozen": ("llama", {"silo_blocks": "frozen", "max_grad_norm": 0.2}),
    "full-frozen-tied-unclipped": ("llama-tied", {"silo_blocks": "frozen", "max_grad_norm": None}),
    "full-sgd": ("llama", {"optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.01}}),
    "full-gpt2": ("gpt2", {"max_grad_norm": 0.5}),
    "full-gpt2-tied": ("gpt2-tied", {"cut": (0, 1), "max_grad_norm": None}),
    "full-no-silo-layers": ("llama-tied", {"cut": (0, 0), "max_grad_norm": 0.5}),
    "lora": ("llama", {"adapter": LORA, "max_grad_norm": 0.05}),
    "lora-tied-unclipped": ("llama-tied", {"adapter": LORA, "max_grad_norm": None}),
    "lora-frozen": ("llama", {"adapter": LORA, "silo_blocks": "frozen", "max_grad_norm": 0.05}),
    "dropout": ("llama-dropout", {"max_grad_norm": 0.5}),
    "dropout-gpt2": ("gpt2-dropout", {"max_grad_norm": 0.5}),
    "dropout-lora": ("gpt2-dropout", {"adapter": {**LORA, "dropout": 0.3}, "max_grad_norm": 0.05}),
    "dropout-lora-frozen": (
        "gpt2-dropout",
        {"adapter": {**LORA, "dropout": 0.3}, "silo_blocks": "frozen", "max_grad_norm": 0.05},
    ),
    "serial": ("llama", {"schedule": "serial", "turn_steps": 3}),
    "bf16": ("llama", {"precision": "bf16", "max_grad_norm": 0.5}),
    "fp16": ("llama", {"precision": "fp16", "max_grad_norm": 0.5}),
    "recomputed": ("gpt2-dropout", {"gradient_checkpointing": True}),
}


class TestOneSilo:
    @pytest.mark.parametrize("case", CASES)
    def test_equals_the_uncut_model_bit_for_bit(self, case: str, new_job: NewJob) -> None:
        name, fields = CASES[case]
        job = new_job(name, **fields)

        result = job.run()

        reference = train_centralised(job.spec, job.folder, job.data)
        # A silo reports sum / n in fp64; the uncut model divides in fp32, which is that, rounded once.
        assert [np.float32(step.loss) for step in result.silos[0].steps] == list(reference.losses)
        assert len(reference.losses) == 20
        assert_same(job.trained("clinic"), reference.state)
        assert result.eval_loss == reference.eval_loss

    def test_notices_one_other_seed(self, new_job: NewJob) -> None:
        """The comparison above can fail: dropout under another key gives another model."""
        job = new_job("gpt2-dropout")
        job.run()
        other = job.spec.model_copy(update={"seed": 6})
        reference = train_centralised(other, job.folder, job.data)
        with pytest.raises(AssertionError, match="tensors differ"):
            assert_same(job.trained("clinic"), reference.state)


EPSILON = torch.finfo(torch.float32).eps
STEPS = 20
# Other shapes of the same product add up in another order. On the longest path of a step through these
# models lie about 4 layers x 8 products x 48 terms and a sum over 100 tokens: 1,700 roundings, which err
# like independent ones by sqrt(1700) eps (Higham and Mary, 2019). 20 steps add up to 20 times that, 1e-4.
BOUND = STEPS * math.sqrt(1700) * EPSILON


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], *, start: dict[str, Tensor]) -> None:
    """What training added to each tensor agrees; storing the tensor rounds it once more in every step."""
    assert left.keys() == right.keys()
    assert any(not torch.equal(value, start[name]) for name, value in right.items())
    for name, value in right.items():
        added = float((value - start[name]).abs().max())
        limit = BOUND * added + STEPS * EPSILON * float(value.abs().max())
        assert float((left[name] - value).abs().max()) <= limit, name


def start_of(job: Job) -> dict[str, Tensor]:
    """The trunk's trainable tensors before the first step."""
    folder = ModelFolder.open(job.folder)
    trunk = load_trunk(
        folder, folder.cut(bottom_layers=1, top_layers=1), adapter=job.spec.adapter, seed=job.spec.seed
    )
    return {name: value.detach() for name, value in trunk.trainable}


def union_job(new_job: NewJob, **fields: Any) -> Job:
    """Unequal rows and lengths; every second row of one silo lost its answer to truncation."""
    data = [
        silo_rows("a", longest=12),
        silo_rows("b", longest=7, num_rows=2),
        silo_rows("c", num_rows=7, unlabelled=lambda number: number < 5),
    ]
    return new_job("llama", *data, silo_blocks="frozen", max_grad_norm=0.2, batch_size=2, **fields)


class TestClientBatching:
    """Frozen blocks: one step on the union of the silos' batches, up to the order of additions."""

    @pytest.mark.parametrize(
        ("adapter", "optimizer"), [({"kind": "full"}, "sgd"), (LORA, "adamw")], ids=["full", "lora"]
    )
    def test_equals_one_step_on_the_union(
        self, adapter: dict[str, Any], optimizer: str, new_job: NewJob
    ) -> None:
        job = union_job(new_job, adapter=adapter, optimizer={"kind": optimizer})

        result = job.run()

        reference = train_centralised(job.spec, job.folder, job.data)
        assert result.eval_loss == pytest.approx(reference.eval_loss, rel=BOUND)
        steps = [[silo.steps[number] for silo in result.silos] for number in range(STEPS)]
        assert any(step[2].num_label_tokens == 0 for step in steps)
        for step, loss in zip(steps, reference.losses, strict=True):
            counted = [part for part in step if part.num_label_tokens]
            total = sum(part.num_label_tokens for part in counted)
            mean = sum(part.loss * part.num_label_tokens for part in counted) / total
            assert mean == pytest.approx(loss, rel=BOUND)
        if optimizer == "sgd":  # AdamW turns a gradient that is all rounding into a whole step
            assert_close(job.trained("a"), reference.state, start=start_of(job))

    def test_order_of_arrival_changes_nothing(self, new_job: NewJob) -> None:
        runs = []
        for seed in (1, 2):
            job = new_job(
                "gpt2-dropout",
                *(silo_rows(name) for name in "abc"),
                rounds=1,
                steps_per_round=6,
                accumulation_steps=2,
            )
            heard = Heard(StepDone)
            job.run(make_lines=lambda names, seed=seed: DelayingLines(names, seed=seed), on_progress=heard)
            runs.append((job.everything(), [report.silo for report in heard.reports]))

        assert_same(runs[0][0], runs[1][0])
        assert runs[0][1] != runs[1][1], "the delays changed no order: this test proves nothing"


class _DelayingLink:
    """Keeps order, but not time."""

    def __init__(self, inner: Link, chance: random.Random) -> None:
        self._inner, self._chance = inner, chance

    async def send(self, frame: Any) -> None:
        await self._inner.send(frame)

    async def receive(self) -> Any:
        frame = await self._inner.receive()
        await asyncio.sleep(self._chance.choice([0, 0, 0.001, 0.01]))
        return frame

    async def close(self) -> None:
        await self._inner.close()


class DelayingLines(Lines):
    """Every silo's frames arrive with random delays."""

    def __init__(self, names: Sequence[str], *, seed: int) -> None:
        super().__init__(names)
        self._seed = seed

    def answer(self, name: str) -> Connect:
        inner, chance = super().answer(name), random.Random(f"{self._seed} {name}")

        async def delayed() -> Link:
            return _DelayingLink(await inner(), chance)

        return delayed


class TestSerial:
    def prepare(self, new_job: NewJob, **fields: Any) -> Job:
        return new_job(
            "llama",
            *(silo_rows(name) for name in "abc"),
            schedule="serial",
            **{"rounds": 3, "steps_per_round": 3, "turn_steps": 2, **fields},
        )

    def test_silos_take_turns_and_the_order_rotates(self, new_job: NewJob) -> None:
        heard = Heard(StepDone)
        self.prepare(new_job).run(on_progress=heard)

        assert [report.step for report in heard.reports] == list(range(27))
        took = [
            "".join(report.silo for report in heard.reports if report.round == number) for number in (1, 2, 3)
        ]
        assert took == ["aabbccabc", "bbccaabca", "ccaabbcab"]

    def test_two_runs_are_bit_identical(self, new_job: NewJob) -> None:
        first, second = self.prepare(new_job), self.prepare(new_job)
        losses = [[step.loss for silo in job.run().silos for step in silo.steps] for job in (first, second)]
        assert losses[0] == losses[1]
        assert_same(first.everything(), second.everything())

    def test_learning_rate_follows_the_global_step(self, new_job: NewJob) -> None:
        """As in a plain loop over the silos' batches in the order of turns; the rates are written out."""
        job = self.prepare(
            new_job,
            rounds=2,
            silo_blocks="frozen",
            optimizer={"kind": "sgd"},
            max_grad_norm=None,
            learning_rate={"peak": 0.5, "warmup_steps": 4, "decay": "linear", "floor": 0.0},
        )
        job.run()

        rates = [0.1, 0.2, 0.3, 0.4, *(0.5 * (1 - step / 13) for step in range(14))]
        expected = plain_sgd(job, list(zip("aabbccabcbbccaabca", rates, strict=True)))
        assert_same({key: value for key, value in job.trained("a").items() if key in expected}, expected)


def plain_sgd(job: Job, steps: list[tuple[str, float]]) -> dict[str, Tensor]:
    """Train the middle layers of the uncut model by ``weight -= rate * gradient``."""
    whole: Any = AutoModelForCausalLM.from_pretrained(job.folder)
    trained = {name: value for name, value in whole.named_parameters() if ".layers.1." in name}
    plans = {
        silo.name: BatchPlan(
            silo.training,
            batch_size=job.spec.batch_size,
            seed=job.spec.seed,
            silo_name=silo.name,
            pad_token_id=0,
        )
        for silo in job.data
    }
    taken = dict.fromkeys(plans, 0)
    for silo, rate in steps:
        batch = plans[silo].batch(taken[silo])
        taken[silo] += 1
        whole.zero_grad()
        mask = batch.layout.attention_mask()
        whole(input_ids=batch.input_ids_BT, attention_mask=mask, labels=batch.labels_BT).loss.backward()
        with torch.no_grad():
            for value in trained.values():
                value.add_(value.grad, alpha=-rate)
    return {name: value.detach() for name, value in trained.items()}
