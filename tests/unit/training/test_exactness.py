"""Split equals unsplit. One silo: bit for bit, over 20 steps, every loss and every trained tensor.

Preconditions: fp32 on a CPU, one thread on both sides, the same batch layout, no accumulation.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from splitlearn.simulation.centralised import train_centralised

LORA = {"kind": "lora", "r": 4, "alpha": 8.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {}),
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
}


class TestOneSilo:
    @pytest.mark.parametrize("case", CASES)
    def test_equals_the_uncut_model_bit_for_bit(
        self, case: str, model: Any, job: Any, rows: Any, split_run: Any, same: Any
    ) -> None:
        name, fields = CASES[case]
        spec, data = job(**fields), [rows("clinic")]
        run = split_run(spec, model(name), data)
        before = run.parameters()

        losses = run.run()

        reference = train_centralised(spec, model(name), data)
        assert losses == list(reference.losses)
        after = run.parameters()
        same(after, reference.state)
        assert len(losses) == 20
        assert all(not torch.equal(before[key], value) for key, value in after.items())
