"""Layers computed again in the backward: the same bits, twice the forwards, generators left as they were."""

from typing import Any

import pytest
import torch
from torch import nn

LORA = {"kind": "lora", "r": 4, "alpha": 8.0}
STEPS = {"rounds": 1, "steps_per_round": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {}),
    "dropout-two-silos": ("gpt2-dropout", {}),
    "dropout-lora-accumulated": (
        "gpt2-dropout",
        {"adapter": {**LORA, "dropout": 0.3}, "accumulation_steps": 2},
    ),
    "dropout-frozen": ("gpt2-dropout", {"silo_blocks": "frozen"}),
}


class TestRecomputing:
    @pytest.mark.parametrize("case", CASES)
    def test_changes_no_bit(self, case: str, new_run: Any, rows: Any, same: Any) -> None:
        name, fields = CASES[case]
        silos = [rows("a"), rows("b", longest=5)] if "two" in case else [rows("a")]
        runs = [
            new_run(name, *silos, gradient_checkpointing=again, **STEPS, **fields) for again in (False, True)
        ]
        plain, again = (run.run() for run in runs)

        assert plain == again
        for left, right in zip(runs[0].everything(), runs[1].everything(), strict=True):
            same(left, right)

    def test_runs_every_trained_layer_twice(self, new_run: Any) -> None:
        counts = []
        for again in (False, True):
            run = new_run("llama", gradient_checkpointing=again)
            segments = (run.silos[0]._blocks.bottom, run.trunk._segment, run.silos[0]._blocks.top)
            calls: list[nn.Module] = []
            for segment in segments:
                for module in segment.modules():
                    if type(module).__name__ == "LlamaMLP":
                        module.register_forward_pre_hook(lambda module, *_, calls=calls: calls.append(module))
            run.step(0)
            counts.append(len(calls))
        assert counts == [4, 8]

    def test_leaves_the_generators_as_they_were(self, new_run: Any) -> None:
        run = new_run("gpt2-dropout", gradient_checkpointing=True)
        state = torch.get_rng_state()
        run.step(0)
        assert torch.equal(torch.get_rng_state(), state)

    def test_ends_with_the_job_that_asked_for_it(self, new_run: Any) -> None:
        """A worker keeps a loaded trunk for the next job."""
        run = new_run("llama", gradient_checkpointing=True)
        segment = run.trunk._segment
        assert segment.base.get_submodule("model.layers.1").gradient_checkpointing
        type(run.trunk)(segment, spec=run.spec.model_copy(update={"gradient_checkpointing": False}))
        assert not segment.base.get_submodule("model.layers.1").gradient_checkpointing
