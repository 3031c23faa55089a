"""Through protocol and sealed channel, a silo and a trunk answer as the library's own model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.generation import CacheLimits, Generated, GenerationOptions, SiloDecoder, TrunkCaches
from splitlearn.partition import BatchLayout, to_array, to_tensor
from splitlearn.simulation.generating import Parts, generate, generating
from splitlearn.training.precision import Precision, computing_in
from splitlearn.wire import CachedHidden, Prefill
from tests.unit.generation.conftest import PROMPTS, SILO, job, run, unsplit

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "phi3", "mistral", "gemma3_text")
CUTS = ((1, 1), (3, 0))
PartsOf = Callable[..., Parts]
WholeModel = Callable[[str], Any]
WITHOUT_END = GenerationOptions(max_new_tokens=9)


async def ask(parts: Parts, spec: Any, *options: GenerationOptions) -> list[Generated]:
    async with generating(spec, parts, silo=SILO) as generation:
        return [await generation.generator.generate(PROMPTS, each) for each in options]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_the_whole_model(
    family: str, parts_of: PartsOf, whole_model: WholeModel
) -> None:
    model = whole_model(family)
    expected = unsplit(model, PROMPTS, WITHOUT_END)
    # An end token that one row comes to soon: the others go on without it.
    ending = GenerationOptions(max_new_tokens=9, end_tokens=frozenset({expected[1][3]}))
    expected_ending = unsplit(model, PROMPTS, ending)
    assert min(map(len, expected_ending)) < 9
    for bottom_layers, top_layers in CUTS:
        spec = job(bottom_layers=bottom_layers, top_layers=top_layers)
        free, ended = run(ask(parts_of(family, spec), spec, WITHOUT_END, ending))
        assert list(free.tokens) == expected
        assert list(ended.tokens) == expected_ending


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_in_half_precision_are_those_of_the_whole_model_under_autocast(
    family: str, precision: Precision, parts_of: PartsOf, whole_model: WholeModel
) -> None:
    expected = unsplit(whole_model(family), PROMPTS, WITHOUT_END, precision=precision)
    spec = job(precision=precision)
    (found,) = run(ask(parts_of(family, spec), spec, WITHOUT_END))
    assert list(found.tokens) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_logits_in_half_precision_are_those_of_the_whole_model_under_autocast(
    precision: Precision, parts_of: PartsOf, whole_model: WholeModel
) -> None:
    """The tokens alone may be the same by chance."""
    spec = job(precision=precision)
    parts = parts_of("llama", spec)
    caches = TrunkCaches(parts.trunk, limits=CacheLimits(), precision=precision)
    decoder = SiloDecoder(parts.blocks, PROMPTS, WITHOUT_END, precision=precision)
    found: list[Tensor] = []
    decoder._chooser.choose = lambda logits_BV: found.append(logits_BV) or logits_BV.float().argmax(-1)  # type: ignore[method-assign, func-returns-value]
    prefill = Prefill(
        cache=0, capacity=decoder.capacity, lengths=decoder.lengths, hidden=to_array(decoder.prefill())
    )
    answer = caches.answer(SILO, prefill)
    assert isinstance(answer, CachedHidden)
    decoder.choose(to_tensor(answer.hidden))
    layout = BatchLayout(decoder.lengths, "left")
    ids = torch.tensor([[0] * (layout.width - len(prompt)) + list(prompt) for prompt in PROMPTS])
    mask_BT = layout.attention_mask()
    positions_BT = (mask_BT.cumsum(-1) - 1).masked_fill(mask_BT == 0, 0)
    with torch.no_grad(), computing_in(precision, torch.device("cpu")):
        whole = whole_model("llama")(input_ids=ids, attention_mask=mask_BT, position_ids=positions_BT)
    assert found[0].dtype is {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert torch.equal(found[0], whole.logits[:, -1])


def test_a_batch_answers_as_each_prompt_alone(parts_of: PartsOf) -> None:
    spec = job()

    async def both() -> tuple[Generated, list[Generated]]:
        async with generating(spec, parts_of("qwen3", spec), silo=SILO) as generation:
            together = await generation.generator.generate(PROMPTS, WITHOUT_END)
            alone = [await generation.generator.generate([prompt], WITHOUT_END) for prompt in PROMPTS]
            return together, alone

    together, alone = run(both())
    assert list(together.tokens) == [each.tokens[0] for each in alone]


def test_one_call_generates_with_the_base_model(
    model_path: Callable[[str], Path], whole_model: WholeModel
) -> None:
    found = generate(job(), PROMPTS, WITHOUT_END, model_folder=model_path("llama"), silo=SILO)
    assert list(found.tokens) == unsplit(whole_model("llama"), PROMPTS, WITHOUT_END)
    assert found.num_steps == 9
