"""Evaluation on held-out rows: fixed batches in a fixed order, and what their scores say."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitlearn.partition import PaddingSide
from splitlearn.tasks.batches import TokenBatch, collate
from splitlearn.tasks.choice_scores import Score, choice_scores, is_right
from splitlearn.tasks.rows import Example, TokenRow
from splitlearn.tasks.scoring import LossSum, RowScore, best_candidate
from splitlearn.tasks.texts import Task


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What one evaluation says of one silo.

    Attributes:
        loss: Over the right rows only, also for ``choice``.
        num_examples: Held-out rows evaluated.
        num_right: ``choice``: rows whose right candidate scored best; None for other tasks.
        scores: ``choice``: what else is to be said.
    """

    loss: LossSum
    num_examples: int
    num_right: int | None
    scores: tuple[Score, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Share of rows answered rightly, or None where there is nothing to choose."""
        return None if self.num_right is None else self.num_right / self.num_examples


class EvaluationPlan:
    """The evaluation batches of one silo: every candidate of every example, in the order of the data.

    Args:
        examples: Held-out examples, at least one.
        batch_size: Token rows per batch; the last batch may hold fewer, and the candidates of one example
            may lie in two batches.
        pad_token_id: Fills padded places.
        max_examples: Examples after this many are left out, and with them the rest of a group that would be
            torn apart; None for all.
        padding_side: Where rows are padded.
        task: Whose numbers :meth:`result` gives beside loss and accuracy.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch_size: int,
        pad_token_id: int,
        max_examples: int | None = None,
        padding_side: PaddingSide = "right",
        task: Task | None = None,
    ) -> None:
        self._task = task
        self._examples = _whole_groups(examples, max_examples)
        assert self._examples, "split_holdout leaves at least one held-out row"
        self._rows: tuple[TokenRow, ...] = tuple(
            row for example in self._examples for row in example.candidates
        )
        self._batch_size = batch_size
        self._pad_token_id = pad_token_id
        self._padding_side: PaddingSide = padding_side

    @property
    def num_rows(self) -> int:
        """Token rows over all batches: how many scores :meth:`result` expects."""
        return len(self._rows)

    @property
    def num_batches(self) -> int:
        """Batches, the last one perhaps smaller."""
        return -(-len(self._rows) // self._batch_size)

    def batch(self, index: int) -> TokenBatch:
        """Return one batch; they count from 0."""
        assert 0 <= index < self.num_batches, "no such evaluation batch"
        first = index * self._batch_size
        rows = self._rows[first : first + self._batch_size]
        return collate(rows, pad_token_id=self._pad_token_id, padding_side=self._padding_side)

    def result(self, scores: Sequence[RowScore]) -> EvaluationResult:
        """Sum up the scores of all rows, given in the order of the batches and of the rows in each."""
        assert len(scores) == len(self._rows), "one score per token row"
        loss_sum, num_tokens, first = 0.0, 0, 0
        chosen: list[int] = []
        for example in self._examples:
            group = scores[first : first + len(example.candidates)]
            first += len(group)
            loss_sum -= group[example.right].log_likelihood
            num_tokens += group[example.right].num_tokens
            chosen.append(best_candidate(group))
        loss, count = LossSum(loss_sum, num_tokens), len(self._examples)
        if not any(len(example.candidates) > 1 for example in self._examples):
            return EvaluationResult(loss, count, None)
        num_right = sum(map(is_right, self._examples, chosen))
        others = choice_scores(self._examples, chosen, task=self._task)
        return EvaluationResult(loss, count, num_right, others)


def _whole_groups(examples: Sequence[Example], max_examples: int | None) -> tuple[Example, ...]:
    """Return the first examples; a group that the limit would tear apart stays away, unless it is all."""
    kept = tuple(examples[:max_examples])
    torn = {example.group for example in examples[len(kept) :] if example.group}
    return tuple(example for example in kept if example.group not in torn) or kept
