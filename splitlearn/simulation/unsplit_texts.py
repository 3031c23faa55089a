"""What one uncut model answers, by the library's own generation: the reference of generated summaries."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from splitlearn.generation import GenerationOptions, SummaryPlan, metrics_of
from splitlearn.planning import ModelFolder
from splitlearn.spec import JobSpec
from splitlearn.tasks import Example, Score, load_tokenizer
from splitlearn.training.precision import Precision, computing_in

_PAD_TOKEN_ID = 0  # any will do: nothing valid attends to a pad


def summary_scores(
    spec: JobSpec, folder: ModelFolder, model: Any, heldout: Sequence[Example]
) -> tuple[Score, ...]:
    """Generate a text for each held-out row and score it, as a silo does; nothing where none is asked for.

    Args:
        spec: The job.
        folder: Where the tokenizer lies.
        model: The whole model, in evaluation mode.
        heldout: Of one silo.

    Raises:
        ModelError: The folder has no tokenizer, or it cannot be read.
    """
    metrics = metrics_of(spec.task)
    if not metrics:
        return ()
    tokenizer = load_tokenizer(folder.path)
    plan = SummaryPlan(
        heldout[: spec.evaluation.max_rows],
        metrics=metrics,
        tokenizer=tokenizer,
        end_token=tokenizer.eos_token_id,
        batch_size=spec.evaluation.batch_size,
    )
    answers = [
        answer
        for prompts in plan.batches()
        for answer in generate_whole(model, prompts, plan.options, precision=spec.precision)
    ]
    return plan.scores(answers)


def generate_whole(
    model: Any, prompts: Sequence[Sequence[int]], options: GenerationOptions, *, precision: Precision
) -> list[tuple[int, ...]]:
    """Return the likeliest tokens after each prompt, to its end token or the longest answer.

    Args:
        model: The whole model, in evaluation mode; its own settings of generation count for nothing.
        prompts: Token ids of each.
        options: Without sampling.
        precision: Of the job.
    """
    assert options.sampling is None, "the library draws other random numbers"
    whole = getattr(model, "get_base_model", lambda: model)()  # which computes with its adapters
    device = next(whole.parameters()).device
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[_PAD_TOKEN_ID] * (width - len(each)) + list(each) for each in prompts])
    mask_BT = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
    own, whole.generation_config = (
        whole.generation_config,
        GenerationConfig(
            max_new_tokens=options.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(options.end_tokens) or None,
            pad_token_id=_PAD_TOKEN_ID,
        ),
    )
    try:
        with torch.no_grad(), computing_in(precision, device):
            found = whole.generate(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
    finally:
        whole.generation_config = own
    return [_until(row, options.end_tokens) for row in found[:, width:].tolist()]


def _until(tokens: Sequence[int], end_tokens: frozenset[int]) -> tuple[int, ...]:
    ends = [place for place, token in enumerate(tokens) if token in end_tokens]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)
