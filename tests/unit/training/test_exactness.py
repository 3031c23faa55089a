"""Split equals unsplit. One silo: bit for bit, over 20 steps, every loss and every trained tensor.

Preconditions: fp32 on a CPU, one thread on both sides, the same batch layout, no accumulation.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.simulation.centralised import train_centralised

LORA = {"kind": "lora", "r": 4, "alpha": 8.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {"max_grad_norm": 0.5}),
    "full-unclipped": ("llama", {"max_grad_norm": None}),
    "full-tied": ("llama-tied", {"max_grad_norm": 0.5}),
    "full-tied-unclipped": ("llama-tied", {"max_grad_norm": None}),
    "full-frozen": ("llama", {"silo_blocks": "frozen", "max_grad_norm": 0.2}),
    "full-frozen-tied-unclipped": ("llama-tied", {"silo_blocks": "frozen", "max_grad_norm": None}),
    "full-sgd": ("llama", {"optimizer": {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.01}}),
    "full-gpt2": ("gpt2", {"max_grad_norm": 0.5}),
    "full-no-silo-layers": ("llama-tied", {"cut": (0, 0), "max_grad_norm": 0.5}),
    "full-uneven-cut": ("gpt2", {"cut": (2, 1)}),
    "lora": ("llama", {"adapter": LORA, "max_grad_norm": 0.05}),
    "lora-tied-unclipped": ("llama-tied", {"adapter": LORA, "max_grad_norm": None}),
    "lora-frozen": ("llama", {"adapter": LORA, "silo_blocks": "frozen", "max_grad_norm": 0.05}),
    "lora-gpt2": ("gpt2", {"adapter": LORA, "max_grad_norm": None}),
    "dropout": ("llama-dropout", {"max_grad_norm": 0.5}),
    "dropout-gpt2": ("gpt2-dropout", {"max_grad_norm": 0.5}),
    "dropout-gpt2-no-silo-layers": ("gpt2-dropout", {"cut": (0, 0)}),
    "dropout-lora": ("gpt2-dropout", {"adapter": {**LORA, "dropout": 0.3}, "max_grad_norm": 0.05}),
    "dropout-lora-frozen": (
        "gpt2-dropout",
        {"adapter": {**LORA, "dropout": 0.3}, "silo_blocks": "frozen", "max_grad_norm": 0.05},
    ),
    "serial": ("llama", {"schedule": "serial", "turn_steps": 3}),
    "bf16": ("llama", {"precision": "bf16", "max_grad_norm": 0.5}),
    "bf16-gpt2-dropout": ("gpt2-dropout", {"precision": "bf16"}),
    "bf16-lora": ("llama", {"precision": "bf16", "adapter": LORA}),
    "fp16": ("llama", {"precision": "fp16", "max_grad_norm": 0.5}),
    "fp16-tied": ("llama-tied", {"precision": "fp16"}),
    "fp16-frozen": ("llama", {"precision": "fp16", "silo_blocks": "frozen"}),
    "recomputed-dropout": ("gpt2-dropout", {"gradient_checkpointing": True}),
    "recomputed-bf16": ("llama", {"gradient_checkpointing": True, "precision": "bf16"}),
}


class TestOneSilo:
    @pytest.mark.parametrize("case", CASES)
    def test_equals_the_uncut_model_bit_for_bit(self, case: str, new_run: Any, same: Any) -> None:
        name, fields = CASES[case]
        run = new_run(name, **fields)
        before = run.parameters()

        losses = run.run()

        reference = train_centralised(run.spec, run.folder, run.data)
        after = run.parameters()
        assert losses == list(reference.losses)
        same(after, reference.state)
        assert len(losses) == 20
        assert all(not torch.equal(before[key], value) for key, value in after.items())


EPSILON = torch.finfo(torch.float32).eps
STEPS = 20
# Other shapes of the same product add up in another order. On the longest path of a step through these
# models lie about 4 layers x 8 products x 48 terms and a sum over 100 tokens: 1,700 roundings, which err
# like independent ones by sqrt(1700) eps (Higham and Mary, 2019). 20 steps add up to 20 times that, 1e-4.
BOUND = STEPS * math.sqrt(1700) * EPSILON


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor], *, start: dict[str, Tensor]) -> None:
    """What training added to each tensor agrees; storing the tensor rounds it once more in every step."""
    assert left.keys() == right.keys()
    for name, value in right.items():
        added = float((value - start[name]).abs().max())
        limit = BOUND * added + STEPS * EPSILON * float(value.abs().max())
        assert float((left[name] - value).abs().max()) <= limit, name


class TestSeveralSilos:
    """Client-batching with frozen blocks; unequal batches and lengths, one silo without label tokens."""

    @pytest.mark.parametrize("adapter", [{"kind": "full"}, LORA], ids=["full", "lora"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_equal_one_step_on_the_union(
        self, adapter: dict[str, Any], optimizer: str, new_run: Any, rows: Any
    ) -> None:
        data = [rows("a", longest=12), rows("b", longest=7, num_rows=2), rows("c", labelled=False)]
        run = new_run(
            "llama",
            *data,
            silo_blocks="frozen",
            adapter=adapter,
            optimizer={"kind": optimizer},
            max_grad_norm=0.2,
        )
        start = run.parameters()

        losses = run.run()

        reference = train_centralised(run.spec, run.folder, run.data)
        assert losses == pytest.approx(reference.losses, rel=BOUND)
        if optimizer == "sgd":  # AdamW turns a gradient that is all rounding into a whole step
            assert_close(run.parameters(), reference.state, start=start)


class TestAccumulation:
    @pytest.mark.parametrize("name", ["llama", "llama-tied"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_equals_the_big_batch(self, name: str, optimizer: str, new_run: Any) -> None:
        run = new_run(name, accumulation_steps=4, optimizer={"kind": optimizer})
        start = run.parameters()

        losses = run.run()

        reference = train_centralised(run.spec, run.folder, run.data)
        assert losses == pytest.approx(reference.losses, rel=BOUND)
        if optimizer == "sgd":
            assert_close(run.parameters(), reference.state, start=start)
