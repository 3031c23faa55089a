"""Held-out rows as prompts and wanted texts, and what is said of the answers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from splitlearn.generation import (
    CacheLimits,
    CacheRefusedError,
    GenerationOptions,
    SiloSummaries,
    SummaryPlan,
    metrics_of,
)
from splitlearn.parties import ComputeThread
from splitlearn.simulation.generating import Parts, generating
from splitlearn.spec import SftTask, SummariseTask
from splitlearn.tasks import IGNORED, Example, Score, TokenRow
from splitlearn.tasks.text_scores import bleu_4, mean_rouge
from tests.unit.generation.conftest import PROMPTS, SILO, job, run, unsplit

PartsOf = Callable[..., Parts]
END = 2
WANTED = ((20, 21, 22, 23, 24, END), (30, 31, 32, 33, 34, 35), (40, END))
METRICS: Any = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")


class WordTokenizer:
    """Every token is a word; the end token is none."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        assert options == {"skip_special_tokens": True}
        return " ".join(f"w{token}" for token in token_ids if token != END)


def example(prompt: Sequence[int], wanted: Sequence[int]) -> Example:
    row = TokenRow((*prompt, *wanted), (*[IGNORED] * len(prompt), *wanted))
    return Example((row,), 0, b"")


def plan(*examples: Example, metrics: Any = METRICS, batch_size: int = 2) -> SummaryPlan:
    rows = examples or tuple(map(example, PROMPTS, WANTED))
    return SummaryPlan(rows, metrics=metrics, tokenizer=WordTokenizer(), end_token=END, batch_size=batch_size)


class TestPlan:
    def test_reads_prompts_in_batches(self) -> None:
        assert list(plan().batches()) == [[PROMPTS[0], PROMPTS[1]], [PROMPTS[2]]]
        assert plan().options == GenerationOptions(max_new_tokens=6, end_tokens=frozenset({END}))

    def test_leaves_out_rows_without_prompt_or_answer(self) -> None:
        found = plan(example((), (5, 6)), example((5, 6), ()), example((5,), (6,)))
        assert found.num_rows == 1
        assert list(found.batches()) == [[(5,)]]

    def test_of_nothing_says_nothing(self) -> None:
        found = plan(example((), (5, 6)))
        assert list(found.batches()) == []
        assert found.scores([]) == ()

    def test_scores_what_is_wanted_as_1(self) -> None:
        wanted = [(*range(40, 46), END)]
        found = plan(example((3,), wanted[0])).scores(wanted)
        assert found == tuple(Score(name, 1.0, 1) for name in ("rouge_1", "rouge_2", "rouge_l", "bleu_4"))

    def test_scores_text_without_end_tokens(self) -> None:
        answers = [(20, 21, 9, 23, END), (30, 31, 32, 33, 34, 35), (41, END)]
        texts, wanted = (
            [WordTokenizer().decode(tokens, skip_special_tokens=True) for tokens in rows]
            for rows in (answers, WANTED)
        )
        found = plan(metrics=("rouge-l", "bleu-4")).scores(answers)
        assert found == (
            Score("rouge_l", mean_rouge(texts, wanted).rouge_l, 3),
            Score("bleu_4", bleu_4(texts, wanted), 3),
        )


class TestRun:
    def summaries(self, parts: Parts, compute: ComputeThread, batch_size: int = 3) -> SiloSummaries:
        return SiloSummaries(plan(batch_size=batch_size), parts.blocks, compute, "worker-1")

    async def scores(self, parts: Parts, limits: CacheLimits | None = None) -> tuple[Score, ...]:
        async with (
            ComputeThread("silo") as compute,
            generating(job(), parts, silo=SILO, limits=limits) as generation,
        ):
            generator = generation.generator
            return await self.summaries(parts, compute).run(send=generator._send, receive=generator._receive)

    def test_scores_the_whole_models_answers(
        self, parts_of: PartsOf, whole_model: Callable[[str], Any]
    ) -> None:
        found = run(self.scores(parts_of("llama", job())))
        answers = unsplit(whole_model("llama"), PROMPTS, plan().options)
        assert found == plan().scores(answers)

    def test_asks_for_fewer_at_once_where_there_is_no_room(self, parts_of: PartsOf) -> None:
        parts = parts_of("llama", job())
        expected = run(self.scores(parts))
        assert run(self.scores(parts, CacheLimits(max_rows=1))) == expected

    def test_fails_where_there_is_no_room_for_one(self, parts_of: PartsOf) -> None:
        with pytest.raises(CacheRefusedError, match="1 rows"):
            run(self.scores(parts_of("llama", job()), CacheLimits(max_bytes=1000)))


def test_only_summaries_are_generated() -> None:
    assert metrics_of(SummariseTask(metrics=("rouge-1",))) == ("rouge-1",)
    assert metrics_of(SummariseTask()) == metrics_of(SftTask()) == ()
