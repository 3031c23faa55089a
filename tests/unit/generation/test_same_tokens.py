"""Through protocol and sealed channel, a silo and a trunk answer as the library's own model does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitlearn.generation import Generated, GenerationOptions
from splitlearn.simulation.generating import Parts, generate, generating
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
