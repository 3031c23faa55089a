"""How near generated texts are to those that were wanted: the scores of a ``summarise`` job's held-out rows.

Prompts and wanted texts are taken from the rows as they are evaluated: what was cut from them to fit
``max_tokens`` is neither read nor wanted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from splitlearn.evaluation_spec import MAX_GENERATED_AT_ONCE
from splitlearn.generation.errors import CacheRefusedError
from splitlearn.generation.options import GenerationOptions
from splitlearn.generation.silo import Compute, Receive, Send, SiloGenerator
from splitlearn.generation.text import Decoder
from splitlearn.partition import SiloBlocks
from splitlearn.spec import SummariseTask
from splitlearn.task_spec import SummaryMetric
from splitlearn.tasks import IGNORED, Example, Score, TokenRow
from splitlearn.tasks.text_scores import bleu_4, mean_rouge
from splitlearn.training.precision import Precision

_SCORES: Mapping[SummaryMetric, Callable[[Sequence[str], Sequence[str]], float]] = {
    "rouge-1": lambda texts, wanted: mean_rouge(texts, wanted).rouge_1,
    "rouge-2": lambda texts, wanted: mean_rouge(texts, wanted).rouge_2,
    "rouge-l": lambda texts, wanted: mean_rouge(texts, wanted).rouge_l,
    "bleu-4": bleu_4,
}


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: tuple[int, ...]
    wanted: tuple[int, ...]


class SummaryPlan:
    """The held-out rows of a silo as prompts and wanted texts.

    A row of which the prompt or the answer was cut away whole is left out.

    Args:
        examples: Held-out examples; of each the right row counts.
        metrics: What is told.
        tokenizer: The model's.
        end_token: After which an answer ends; None for none.
        batch_size: Rows generated at once.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        metrics: Sequence[SummaryMetric],
        tokenizer: Decoder,
        end_token: int | None,
        batch_size: int,
    ) -> None:
        self._metrics, self._tokenizer = metrics, tokenizer
        self._batch_size = min(batch_size, MAX_GENERATED_AT_ONCE)
        rows = (_split(example.candidates[example.right]) for example in examples)
        self._rows = [row for row in rows if row.prompt and row.wanted]
        longest = max((len(row.wanted) for row in self._rows), default=1)
        ends = frozenset() if end_token is None else frozenset({end_token})
        self.options = GenerationOptions(max_new_tokens=longest, end_tokens=ends)
        """Greedy, and no answer is longer than the longest that is wanted."""

    @property
    def num_rows(self) -> int:
        """Rows that are scored."""
        return len(self._rows)

    def batches(self) -> Iterator[list[tuple[int, ...]]]:
        """Yield the prompts, some at once, in the order of the rows."""
        for first in range(0, len(self._rows), self._batch_size):
            yield [row.prompt for row in self._rows[first : first + self._batch_size]]

    def scores(self, answers: Sequence[Sequence[int]]) -> tuple[Score, ...]:
        """Score what was generated for the prompts, in their order."""
        assert len(answers) == len(self._rows), "one answer per row"
        if not self._rows:
            return ()
        texts = [self._text(answer) for answer in answers]
        wanted = [self._text(row.wanted) for row in self._rows]
        return tuple(
            Score(metric.replace("-", "_"), _SCORES[metric](texts, wanted), len(texts))
            for metric in self._metrics
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True).strip()


@dataclass(frozen=True)
class SiloSummaries:
    """A silo's part in an evaluation by generated texts.

    Attributes:
        plan: Its rows.
        blocks: Its bottom and top.
        compute: Where they are computed.
        peer: Name of the worker, for messages to people.
        precision: Of the job.
    """

    plan: SummaryPlan
    blocks: SiloBlocks
    compute: Compute
    peer: str
    precision: Precision = "fp32"

    async def run(self, *, send: Send, receive: Receive) -> tuple[Score, ...]:
        """Generate within a turn that the trunk has begun, and score.

        Raises:
            CacheRefusedError: The trunk has no room for a single row.
            TrunklineError: The conversation failed.
        """
        generator = SiloGenerator(
            self.blocks,
            send=send,
            receive=receive,
            compute=self.compute,
            peer=self.peer,
            precision=self.precision,
        )
        answers: list[tuple[int, ...]] = []
        for prompts in self.plan.batches():
            answers += await self._answers(generator, prompts)
        return await self.compute(self.plan.scores, answers)

    async def _answers(
        self, generator: SiloGenerator, prompts: list[tuple[int, ...]]
    ) -> list[tuple[int, ...]]:
        try:
            return list((await generator.generate(prompts, self.plan.options)).tokens)
        except CacheRefusedError:
            if len(prompts) == 1:
                raise
        half = len(prompts) // 2
        return [
            *await self._answers(generator, prompts[:half]),
            *await self._answers(generator, prompts[half:]),
        ]


def metrics_of(task: object) -> tuple[SummaryMetric, ...]:
    """Return the scores of generated texts that a job's task asks for."""
    return task.metrics if isinstance(task, SummariseTask) else ()


def _split(row: TokenRow) -> _Row:
    first = next((place for place, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
    return _Row(tuple(row.input_ids[:first]), tuple(row.input_ids[first:]))
