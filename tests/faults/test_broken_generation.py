"""Links that break in the middle of an answer: the same tokens, and no token is computed twice."""

import asyncio
from collections.abc import Sequence

import pytest

from splitlearn.generation import Generated, GenerationOptions
from splitlearn.simulation.generating import generating, load_parts
from tests.faults.test_broken_links import FaultyLines, break_every
from tests.integration.conftest import Job, NewJob, silo_rows

PROMPTS = ((5, 9, 31, 40, 12), (50, 51, 3, 4, 20, 61, 7, 8), (33, 20, 61))
OPTIONS = GenerationOptions(max_new_tokens=8)


@pytest.fixture
def job(new_job: NewJob) -> Job:
    return new_job("llama", silo_rows("a"), patience_seconds=20)


async def answer(job: Job, lines: FaultyLines | None = None) -> tuple[Generated, int, int]:
    """Answers, tokens that the trunk computed, and connections."""
    parts = load_parts(job.spec, model_folder=job.folder, silo="a")

    def make(names: Sequence[str]) -> FaultyLines:
        assert list(names) == ["a"]
        return lines or FaultyLines(["a"], fault=lambda _, frame: [frame])

    async with generating(job.spec, parts, silo="a", make_lines=make) as generation:
        found = await generation.generator.generate(PROMPTS, OPTIONS)
        return found, generation.served.num_tokens, generation.traffic.connections


# A handshake takes two frames of the silo and one of the worker: with so many some message gets through.
@pytest.mark.parametrize(("end", "frames"), [("silo", 4), ("silo", 5), ("trunk", 3), ("trunk", 4)])
def test_nothing_is_lost_or_computed_again(end: str, frames: int, job: Job) -> None:
    expected, num_tokens, _ = asyncio.run(answer(job))
    assert num_tokens == sum(map(len, PROMPTS)) + 3 * 7
    lines = FaultyLines(["a"], fault=break_every(frames), ends=[end])
    found, again, connections = asyncio.run(asyncio.wait_for(answer(job, lines), timeout=60))
    assert found == expected
    assert again == num_tokens
    assert lines.struck >= 2
    assert connections > 2
