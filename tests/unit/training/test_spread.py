"""A trunk over two devices trains as on one, and either takes the other's checkpoint up.

``cpu:1`` names the processor's memory, but is another device to whoever asks for a move.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.partition import ModelFolder, Spread, load_trunk
from splitlearn.training import CheckpointStore, TrunkTrainer, gradient_norms
from tests.unit.training.conftest import SplitRun

NewRun = Callable[..., SplitRun]
Same = Callable[[dict[str, Tensor], dict[str, Tensor]], None]
ONE = Spread.on("cpu")
TWO = Spread.of([(range(1, 2), "cpu"), (range(2, 3), "cpu:1")])
CASES: dict[str, dict[str, Any]] = {
    "every weight, clipped": {"max_grad_norm": 0.05},
    "adapters": {"adapter": {"kind": "lora"}, "learning_rate": {"peak": 3e-2}},
    "momentum, accumulated": {"optimizer": {"kind": "sgd", "momentum": 0.9}, "accumulation_steps": 2},
}


def lay(run: SplitRun, spread: Spread) -> None:
    """Give a run that has not begun another trunk."""
    spec, folder = run.spec, ModelFolder.open(run.folder)
    cut = folder.cut(bottom_layers=1, top_layers=1)
    trunk = load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed, device=spread)
    run.trunk = TrunkTrainer(trunk, spec=spec)


class TestOverTwoDevices:
    @pytest.mark.parametrize("case", CASES)
    def test_trains_as_on_one(self, case: str, new_run: NewRun, same: Same) -> None:
        one, two = new_run("llama", **CASES[case]), new_run("llama", **CASES[case])
        lay(two, TWO)
        assert two.run() == one.run()
        same(two.parameters(), one.parameters())

    @pytest.mark.parametrize("name", ["llama-dropout", "gpt2-dropout"])
    def test_draws_the_same_dropout(self, name: str, new_run: NewRun, same: Same) -> None:
        one, two = new_run(name), new_run(name)
        lay(two, TWO)
        assert two.run() == one.run()
        same(two.parameters(), one.parameters())

    @pytest.mark.parametrize("spreads", [(TWO, ONE), (ONE, TWO)], ids=["two-one", "one-two"])
    @pytest.mark.parametrize("case", CASES)
    def test_goes_on_from_the_others_checkpoint(
        self, spreads: tuple[Spread, Spread], case: str, new_run: NewRun, same: Same, tmp_path: Path
    ) -> None:
        run, undisturbed = new_run("llama", **CASES[case]), new_run("llama", **CASES[case])
        expected = undisturbed.run()
        lay(run, spreads[0])
        store = CheckpointStore(tmp_path, spec=run.spec, party="trunk-0")
        losses = [run.step(step) for step in range(10)]
        store.save(run.trunk.state(), round_number=1)
        lay(run, spreads[1])
        run.trunk.load_state(store.load(1))
        assert losses + [run.step(step) for step in range(10, 20)] == expected
        same(run.parameters(), undisturbed.parameters())

    def test_saves_the_same_file(self, new_run: NewRun, tmp_path: Path) -> None:
        digests = []
        for number, spread in enumerate((ONE, TWO)):
            run = new_run("llama")
            lay(run, spread)
            run.step(0)
            store = CheckpointStore(tmp_path / str(number), spec=run.spec, party="trunk-0")
            digests.append((store.save(run.trunk.state(), round_number=1) / "state.safetensors").read_bytes())
        assert digests[0] == digests[1]


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="this machine has no CUDA device")
def test_norms_of_gradients_on_several_devices_are_gathered() -> None:
    values = [torch.nn.Parameter(torch.zeros(2, device=device)) for device in ("cpu", "cuda:0")]
    for value in values:
        value.grad = torch.full_like(value, 3.0)
    assert gradient_norms(values) == pytest.approx((18**0.5, 18**0.5))
