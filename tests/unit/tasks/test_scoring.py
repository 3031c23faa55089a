import math

import pytest
import torch
from torch.nn import functional

from splitlearn.tasks import (
    IGNORED,
    EvaluationPlan,
    Example,
    LossSum,
    RowScore,
    TokenRow,
    best_candidate,
    collate,
    row_scores,
    total_loss,
)


class TestRowScores:
    def test_sums_equal_cross_entropy_row_by_row(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits_BTV = torch.randn(3, 7, 11, generator=generator) * 3
        labels_BT = torch.randint(0, 11, (3, 7), generator=generator)
        labels_BT[0, 3:] = IGNORED
        labels_BT[2] = IGNORED
        scores = row_scores(logits_BTV, labels_BT)
        for row, score in enumerate(scores):
            expected = functional.cross_entropy(
                logits_BTV[row, :-1].double(), labels_BT[row, 1:], ignore_index=IGNORED, reduction="sum"
            )
            # fp32 log-softmax: one ulp of a loss near 10 is 1e-6, over at most six tokens.
            assert -score.log_likelihood == pytest.approx(float(expected), abs=1e-5)
        assert [score.num_tokens for score in scores] == [2, 6, 0]
        assert scores[2] == RowScore(0.0, 0)

    def test_padding_changes_nothing(self) -> None:
        logits_BTV = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
        row = TokenRow((1, 2, 3), (1, 2, 3))
        alone = collate([row], pad_token_id=0)
        beside = collate([row, TokenRow((1,) * 6, (1,) * 6)], pad_token_id=0, padding_side="left")
        wide_BTV = torch.full((2, 6, 5), math.inf)
        wide_BTV[:1, 3:] = logits_BTV
        assert row_scores(logits_BTV, alone.labels_BT)[0] == row_scores(wide_BTV, beside.labels_BT)[0]

    def test_logits_that_are_no_numbers_show(self) -> None:
        scores = row_scores(torch.full((1, 2, 3), math.nan), torch.tensor([[0, 1]]))
        assert math.isnan(scores[0].log_likelihood)


class TestLossSum:
    def test_total_is_weighted_by_tokens(self) -> None:
        total = total_loss([LossSum(10.0, 10), LossSum(6.0, 2)])
        assert total == LossSum(16.0, 12)
        assert total.mean == 16 / 12
        assert total.perplexity == pytest.approx(math.exp(16 / 12))

    def test_no_token(self) -> None:
        assert math.isnan(total_loss([]).mean)

    def test_perplexity_overflows_to_infinity(self) -> None:
        assert LossSum(1e6, 1).perplexity == math.inf


class TestBestCandidate:
    @pytest.mark.parametrize(
        ("values", "best"),
        [([-3.0, -1.0, -2.0], 1), ([-1.0, -1.0], 0), ([math.nan, -9.0], 1), ([-9.0, math.nan], 0)],
    )
    def test_highest_log_likelihood_wins(self, values: list[float], best: int) -> None:
        assert best_candidate([RowScore(value, 1) for value in values]) == best


class TestEvaluationPlan:
    def choice(self, right: int) -> Example:
        rows = tuple(TokenRow((1, 2 + n), (IGNORED, 2 + n)) for n in range(3))
        return Example(rows, right, bytes(16))

    def plan(
        self, *examples: Example, batch_size: int = 4, max_examples: int | None = None
    ) -> EvaluationPlan:
        return EvaluationPlan(examples, batch_size=batch_size, pad_token_id=0, max_examples=max_examples)

    def test_every_candidate_in_fixed_order(self) -> None:
        plan = self.plan(self.choice(0), self.choice(2))
        assert (plan.num_rows, plan.num_batches) == (6, 2)
        assert [plan.batch(n).input_ids_BT[:, 1].tolist() for n in range(2)] == [[2, 3, 4, 2], [3, 4]]

    def test_result_scores_groups_and_takes_the_loss_of_the_right_rows(self) -> None:
        plan = self.plan(self.choice(0), self.choice(2))
        values = [-1.0, -2.0, -3.0, -1.0, -2.0, -3.5]
        result = plan.result([RowScore(value, 1) for value in values])
        assert result.loss == LossSum(4.5, 2)
        assert (result.num_examples, result.num_right, result.accuracy) == (2, 1, 0.5)

    def test_other_tasks_have_no_accuracy(self) -> None:
        plan = self.plan(Example((TokenRow((1, 2), (1, 2)),), 0, bytes(16)))
        result = plan.result([RowScore(-2.0, 1)])
        assert (result.accuracy, result.loss.mean) == (None, 2.0)

    def test_takes_no_more_examples_than_asked(self) -> None:
        plan = self.plan(self.choice(0), self.choice(1), self.choice(2), max_examples=2)
        assert plan.num_rows == 6
