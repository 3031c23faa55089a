"""The process that :mod:`bench.party_memory` measures: three steps of a trunk, or of a silo's blocks."""

import json
import os
import sys
from pathlib import Path

import torch

from splitlearn.partition import BatchLayout, load_silo_blocks, load_trunk
from splitlearn.planning import ModelFolder
from splitlearn.simulation.platform.memory import peak_memory_of
from splitlearn.spec import JobSpec
from splitlearn.tasks import TokenBatch
from splitlearn.training import SiloTrainer, StepKey, TrunkPart, TrunkTrainer

_STEPS = 3


def main(arguments: list[str]) -> int:
    """Train, and print what it took."""
    party, folder_name, spec_file = arguments
    spec, folder = JobSpec.parse(Path(spec_file).read_bytes()), ModelFolder.open(folder_name)
    torch.set_num_threads(1)
    _warm_up()
    before = _peak_bytes()
    (_train_trunk if party == "worker" else _train_blocks)(spec, folder)
    sys.stdout.write(json.dumps({"bytes": _peak_bytes() - before}) + "\n")
    return 0


def _warm_up() -> None:
    """Let torch load what it loads with the first forward and backward: that is the program's."""
    layer = torch.nn.Linear(8, 8)
    ones = layer(torch.ones(1, 1, 4, 8))
    torch.autograd.backward(torch.nn.functional.scaled_dot_product_attention(ones, ones, ones).sum())


def _train_trunk(spec: JobSpec, folder: ModelFolder) -> None:
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    trainer = TrunkTrainer(load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed), spec=spec)
    layout = BatchLayout((spec.max_tokens,) * spec.batch_size)
    for step in range(_STEPS):
        trainer.begin_step(step, num_label_tokens=layout.num_valid)
        part = TrunkPart(layout, torch.randn(layout.num_valid, folder.hidden_size))
        trainer.forward([part], StepKey(spec.seed, 1, step, 0))
        trainer.backward(0, [torch.randn(layout.num_valid, folder.hidden_size)], weights=[1.0])
        trainer.finish_step([trainer.outcome()])


def _train_blocks(spec: JobSpec, folder: ModelFolder) -> None:
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    blocks = load_silo_blocks(folder, cut, adapter=spec.adapter, seed=spec.seed)
    trainer = SiloTrainer(blocks, spec=spec, silo=spec.silos[0].name)
    layout = BatchLayout((spec.max_tokens,) * spec.batch_size)
    tokens_BT = torch.randint(folder.config["vocab_size"], (layout.num_rows, layout.width))
    batch = TokenBatch(tokens_BT, tokens_BT, layout)
    for step in range(_STEPS):
        key = StepKey(spec.seed, 1, step, 0)
        trainer.begin_step(step, num_label_tokens=batch.num_label_tokens)
        trainer.bottom_forward(batch, key)
        trainer.top_loss_and_grad(torch.randn(layout.num_valid, folder.hidden_size), batch, key)
        trainer.bottom_backward(0, torch.randn(layout.num_valid, folder.hidden_size))
        trainer.finish_step(trainer.outcome())


def _peak_bytes() -> int:
    peak = peak_memory_of(os.getpid())
    assert peak is not None, "the benchmark has looked whether the system tells it"
    return peak


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
