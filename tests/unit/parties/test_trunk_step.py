"""One step at the trunk, message by message."""

from typing import Any

import pytest
import torch

from splitlearn.errors import ProtocolError, TrainingError
from splitlearn.parties.plan import Turn
from splitlearn.parties.trunk_step import TrunkStep
from splitlearn.training import TrunkPart
from splitlearn.wire import Goodbye, GoodbyeReason, RoundSaved
from tests.unit.parties.conftest import HIDDEN, activations, grad_hidden, job, outcome


def new_step(*silos: str, number: int = 1, **fields: Any) -> TrunkStep:
    return TrunkStep(job(*silos, **fields), Turn(1, silos, 0, 2), number)


def parts_of(message: Any) -> list[TrunkPart]:
    step = new_step("a")
    step.take("a", message)
    return step.parts(0)


def two(micro_batch: int = 0, **fields: Any) -> Any:
    return activations(micro_batch, num_micro_batches=2, **fields)


class TestOrder:
    def test_answers_in_the_rosters_order_whoever_came_first(self) -> None:
        step = new_step("a", "b", "c")
        for name, value in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
            assert step.next_forward is None
            step.take(name, activations(value=value))
        assert step.is_begun
        assert [float(part.hidden_ND[0, 0]) for part in step.parts(0)] == [1.0, 2.0, 3.0]

    def test_says_whom_it_waits_for(self) -> None:
        step = new_step("a", "b")
        step.take("b", activations())
        assert step.missing == {"a"}
        step.take("a", activations())
        assert step.missing == set()
        step.forwarded()
        step.take("a", grad_hidden())
        assert step.missing == {"b"}
        step.take("b", grad_hidden())
        assert step.next_backward == 0
        step.backwarded()
        assert step.is_done

    def test_a_micro_batch_may_be_ahead(self) -> None:
        step = new_step("a", accumulation_steps=2)
        step.take("a", two(0))
        step.take("a", two(1))
        step.forwarded()
        assert (step.next_forward, step.next_backward) == (1, None)
        step.take("a", grad_hidden(0))
        assert step.next_backward == 0


class TestRestart:
    def test_forgets_what_was_sent(self) -> None:
        step = new_step("a", "b")
        step.take("a", activations(value=1.0))
        step.restart()
        assert step.missing == {"a", "b"}

    def test_drops_what_a_silo_sent_before_it_learnt_of_it(self) -> None:
        """The later micro-batch of the void attempt must not pass for that of the new one."""
        step = new_step("a", "b", accumulation_steps=2)
        step.take("a", two(0, value=1.0))
        step.take("b", two(0, value=1.0))
        step.restart()
        for name in "ab":
            step.take(name, two(1, value=1.0))
        for name in "ab":
            step.take(name, two(0, value=2.0))
        step.forwarded()
        assert step.next_forward is None
        for name in "ab":
            step.take(name, two(1, value=2.0))
        assert [float(part.hidden_ND[0, 0]) for part in step.parts(1)] == [2.0, 2.0]


class TestNumbers:
    def test_weights_are_shares_of_the_label_tokens(self) -> None:
        step = new_step("a", "b", "c")
        for name, count in (("a", 1), ("b", 3), ("c", 0)):
            step.take(name, activations(num_label_tokens=count))
        assert step.num_label_tokens == 4
        assert step.weights() == [0.25, 0.75, 0.0]

    def test_weights_without_any_are_zero(self) -> None:
        step = new_step("a")
        step.take("a", activations(num_label_tokens=0))
        assert step.weights() == [0.0]

    def test_outcomes_come_in_the_rosters_order(self) -> None:
        step = new_step("a", "b")
        for name, count in (("b", 2), ("a", 1)):
            step.take(name, activations(outcome=outcome(num_tokens=count)))
        assert [told.num_tokens for told in step.outcomes()] == [1, 2]

    def test_gradients_come_in_the_rosters_order(self) -> None:
        step = new_step("a", "b")
        step.take("b", grad_hidden())
        step.take("a", grad_hidden())
        assert torch.equal(step.grads(0)[0], torch.ones(3, HIDDEN))

    def test_a_frozen_bottom_gets_no_gradient(self) -> None:
        assert new_step("a").answer(0, None, None).grad is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("message", "words"),
        [
            (activations(num_micro_batches=2), "2 micro-batches; the specification has 1"),
            (activations(lengths=(3, 0)), "a row of 0 tokens"),
            (activations(lengths=(1, 1, 1)), "3 rows; the specification allows 2"),
        ],
    )
    def test_of_what_disagrees_with_the_specification(self, message: Any, words: str) -> None:
        with pytest.raises(ProtocolError, match=words):
            parts_of(message)

    def test_of_a_row_longer_than_the_limit(self) -> None:
        step = new_step("a", max_tokens=2)
        step.take("a", activations(lengths=(3,)))
        with pytest.raises(ProtocolError, match="3 tokens; the specification allows 1 to 2"):
            step.parts(0)

    def test_of_a_silo_that_counts_anew(self) -> None:
        step = new_step("a", accumulation_steps=2)
        step.take("a", two(0))
        with pytest.raises(ProtocolError, match="announced 3 label tokens for step 1, then 4"):
            step.take("a", two(1, num_label_tokens=4))

    def test_of_a_missing_outcome_by_name(self) -> None:
        step = new_step("a", "b")
        step.take("a", activations(outcome=outcome()))
        step.take("b", activations())
        with pytest.raises(ProtocolError, match="silo 'b' began step 1 without the outcome"):
            step.outcomes()

    def test_of_another_message(self) -> None:
        with pytest.raises(ProtocolError, match="silo 'a' sent RoundSaved where none was awaited"):
            new_step("a").take("a", RoundSaved(round=1))

    def test_of_a_goodbye_is_a_silo_that_left(self) -> None:
        with pytest.raises(TrainingError, match=r"silo 'a' left the job \(failed\)"):
            new_step("a").take("a", Goodbye(reason=GoodbyeReason.FAILED))
