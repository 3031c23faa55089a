"""What an evaluation says: mean loss, perplexity, accuracy of the best-scored candidate.

Axes: B rows, T positions, V vocabulary.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitlearn.tasks.rows import IGNORED


@dataclass(frozen=True, slots=True)
class RowScore:
    """How likely the model finds one row's label tokens.

    Attributes:
        log_likelihood: Sum of the natural log-probabilities of the row's label tokens.
        num_tokens: Number of those tokens.
    """

    log_likelihood: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss before division, so that it adds up over batches and silos.

    Attributes:
        loss_sum: Negative log-likelihood in nats, summed over tokens.
        num_tokens: Number of those tokens.
    """

    loss_sum: float
    num_tokens: int

    @property
    def mean(self) -> float:
        """Mean loss per token in nats; NaN where there was no token."""
        return self.loss_sum / self.num_tokens if self.num_tokens else math.nan

    @property
    def perplexity(self) -> float:
        """Exponential of the mean loss; infinite where that overflows."""
        try:
            return math.exp(self.mean)
        except OverflowError:
            return math.inf


def row_scores(logits_BTV: Tensor, labels_BT: Tensor) -> list[RowScore]:
    """Score each row of a batch: the prediction at t against the label at t + 1.

    Args:
        logits_BTV: Floating point; the log-softmax is taken in fp32, the sum over a row in fp64.
        labels_BT: int64, ``IGNORED`` where a token does not count.
    """
    targets = labels_BT[:, 1:]
    counted = targets != IGNORED
    logits_BSV = logits_BTV[:, :-1].float()
    chosen = logits_BSV.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    log_probabilities = chosen - torch.logsumexp(logits_BSV, dim=-1)
    sums = torch.where(counted, log_probabilities, 0.0).double().sum(dim=-1)
    return [
        RowScore(log_likelihood, num_tokens)
        for log_likelihood, num_tokens in zip(sums.tolist(), counted.sum(dim=-1).tolist(), strict=True)
    ]


def total_loss(parts: Iterable[LossSum]) -> LossSum:
    """Add losses up, so that the mean of the sum is weighted by tokens."""
    listed = list(parts)
    return LossSum(math.fsum(part.loss_sum for part in listed), sum(part.num_tokens for part in listed))


def best_candidate(scores: Sequence[RowScore]) -> int:
    """Return the index of the candidate with the highest log-likelihood; the first of several equals.

    A candidate whose score is not a number is never the best while another is one.
    """

    def rank(index: int) -> float:
        value = scores[index].log_likelihood
        return -math.inf if math.isnan(value) else value

    return max(range(len(scores)), key=rank)
