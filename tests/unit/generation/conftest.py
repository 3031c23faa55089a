"""The small random models of the partition's tests, and ways to generate with them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from transformers import GenerationConfig

from splitlearn.generation import GenerationOptions
from splitlearn.partition import BatchLayout
from splitlearn.simulation.generating import Parts, load_parts
from splitlearn.spec import JobSpec
from splitlearn.training.precision import Precision, computing_in
from tests.unit.partition.conftest import _one_quiet_thread as _one_quiet_thread
from tests.unit.partition.conftest import folder_of as folder_of
from tests.unit.partition.conftest import model_path as model_path
from tests.unit.partition.conftest import whole_model as whole_model

R = TypeVar("R")
SILO = "north"
PROMPTS = ((5, 9, 31, 40, 12, 66, 8), (50, 51, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), (33, 20, 61))


def job(*, bottom_layers: int = 1, top_layers: int = 1, **fields: Any) -> JobSpec:
    """A job of one silo."""
    cut = {"bottom_layers": bottom_layers, "top_layers": top_layers}
    silos = [{"name": SILO, "dataset": "d", "cut": cut}]
    return JobSpec.parse({"model": "m", "silos": silos, "patience_seconds": 20, **fields})


def run(test: Coroutine[Any, Any, R]) -> R:
    """Run a test that must not hang."""
    return asyncio.run(asyncio.wait_for(test, timeout=15))


def unsplit(
    model: Any, prompts: Sequence[Sequence[int]], options: GenerationOptions, *, precision: Precision = "fp32"
) -> list[tuple[int, ...]]:
    """What the library's own greedy generation answers."""
    assert options.sampling is None
    model.generation_config = GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(options.end_tokens) or None,
        pad_token_id=0,
    )
    layout = BatchLayout(tuple(map(len, prompts)), "left")
    ids = torch.tensor([[0] * (layout.width - len(prompt)) + list(prompt) for prompt in prompts])
    with computing_in(precision, torch.device("cpu")):
        found = model.generate(input_ids=ids, attention_mask=layout.attention_mask())
    return [_until(row, options.end_tokens) for row in found[:, layout.width :].tolist()]


def _until(tokens: list[int], end_tokens: frozenset[int]) -> tuple[int, ...]:
    ends = [place for place, token in enumerate(tokens) if token in end_tokens]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)


@pytest.fixture
def parts_of(model_path: Callable[[str], Path]) -> Callable[..., Parts]:
    """Return a variant's parts, cut as a job says."""
    return lambda variant, spec: load_parts(spec, model_folder=model_path(variant), silo=SILO)
