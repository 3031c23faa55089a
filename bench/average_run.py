"""Child process: how long the average of two replicas' trunks takes, and taking it over."""

import statistics
import time

import torch
from pydantic import BaseModel, ConfigDict

from bench.child import end_with_parent, prepare_torch, serve
from bench.documents import Task
from splitlearn.partition import BatchLayout, ModelFolder, load_trunk
from splitlearn.training import StepKey, TrunkPart, TrunkTrainer
from splitlearn.training.trunk_average import average_replicas, contribution

_REPEATS = 5


class AverageAnswer(BaseModel):
    """What it took, in the median."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float


def run(task: Task) -> AverageAnswer:
    """Average the trunk with itself after a step, so that the optimiser has its moments."""
    end_with_parent()
    prepare_torch(task)
    trainer = _after_a_step(task)
    seconds = []
    for _ in range(_REPEATS):
        parts = [contribution(trainer.state(), num_tokens=tokens) for tokens in (100, 101)]
        started = time.perf_counter()
        trainer.load_state(average_replicas(parts, moments="averaged"))
        seconds.append(time.perf_counter() - started)
    return AverageAnswer(seconds=statistics.median(seconds))


def _after_a_step(task: Task) -> TrunkTrainer:
    spec, folder = task.spec, ModelFolder.open(task.model_folder)
    cut = folder.cut(bottom_layers=1, top_layers=1)
    trainer = TrunkTrainer(load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed), spec=spec)
    layout = BatchLayout((spec.max_tokens,) * spec.batch_size)
    trainer.begin_step(0, num_label_tokens=layout.num_valid)
    part = TrunkPart(layout, torch.randn(layout.num_valid, folder.hidden_size))
    trainer.forward([part], StepKey(spec.seed, 1, 0, 0))
    trainer.backward(0, [torch.randn(layout.num_valid, folder.hidden_size)], weights=[1.0])
    trainer.finish_step([trainer.outcome()])
    return trainer


if __name__ == "__main__":
    serve(Task, run)
