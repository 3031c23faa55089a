"""Child process: a client of federated averaging, which holds the whole model; its memory is measured.

It trains the same adapter on the same rows as the split run and then has its LoRA tensors at hand, ready to
be sent. Nothing is sent: the memory of sending a few megabytes is not what is compared.
"""

import os

import torch

from bench.cases import batch_plan
from bench.child import end_with_parent, prepare_torch, serve
from bench.documents import ClientPeaks, Task
from bench.reference import load_whole
from splitlearn.simulation.platform.memory import peak_memory_of
from splitlearn.training.optimizer import build_optimizer, set_learning_rate


def run(task: Task) -> ClientPeaks:
    """Take the job's steps as one client of federated averaging would."""
    end_with_parent()
    prepare_torch(task)
    imports = _peak_bytes()
    model = load_whole(task)
    loaded = _peak_bytes()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, task.spec.optimizer)
    set_learning_rate(optimizer, task.spec.learning_rate.peak)
    plan = batch_plan(task.spec, task.data())
    for step in range(task.spec.total_steps):
        batch = plan.batch(step)
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=batch.input_ids_BT, labels=batch.labels_BT, use_cache=False).loss.backward()
        if task.spec.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, task.spec.max_grad_norm)
        optimizer.step()
    update = [parameter.detach().clone() for parameter in parameters]
    return ClientPeaks(
        imports_bytes=imports,
        loaded_bytes=loaded,
        peak_bytes=_peak_bytes(),
        update_bytes=sum(tensor.nbytes for tensor in update),
    )


def _peak_bytes() -> int:
    # Not ru_maxrss: it outlives an exec, and so begins with what our parent had.
    peak = peak_memory_of(os.getpid())
    assert peak is not None, "the benchmark has looked whether the system tells it"
    return peak


if __name__ == "__main__":
    serve(Task, run)
