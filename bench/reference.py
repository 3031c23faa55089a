"""Child process: the reference, a plain training loop over the whole model as anybody would write it."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.cases import batch_plan
from bench.child import end_with_parent, prepare_torch, serve
from bench.clock import StepClock
from bench.documents import Measured, Task
from splitlearn.partition import apply_adapter
from splitlearn.training.optimizer import build_optimizer, set_learning_rate


def run(task: Task) -> Measured:
    """Train and return the step times."""
    end_with_parent()
    prepare_torch(task)
    model = load_whole(task)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(parameters, task.spec.optimizer)
    set_learning_rate(optimizer, task.spec.learning_rate.peak)
    plan = batch_plan(task.spec, task.data())
    clock = StepClock(task)
    losses = []
    for step in range(task.spec.total_steps):
        clock.step_begins()
        batch = plan.batch(step)
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=batch.input_ids_BT, labels=batch.labels_BT, use_cache=False).loss
        loss.backward()
        if task.spec.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, task.spec.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    return clock.measured(losses)


def load_whole(task: Task) -> Any:
    """Load the whole model in training mode, with the job's trainable set."""
    model = AutoModelForCausalLM.from_pretrained(
        task.model_folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return apply_adapter(model.train(), task.spec.adapter, seed=task.spec.seed)


if __name__ == "__main__":
    serve(Task, run)
