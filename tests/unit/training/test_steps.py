"""What a step does to all parties: it moves everyone, or no one; it can be undone and resumed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from splitlearn.errors import ProtocolError, StorageError
from splitlearn.partition import BatchLayout
from splitlearn.tasks import BatchPlan, concatenate_batches
from splitlearn.training import CheckpointStore, StepKey, TrunkPart

LORA = {"kind": "lora", "r": 4, "alpha": 8.0}
DATA = ("a", "b")


def identical(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> bool:
    return all(
        one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(left, right, strict=True)
    )


class TestNonFinite:
    @pytest.mark.parametrize("max_grad_norm", [None, 1.0])
    @pytest.mark.parametrize("segment", ["bottom", "trunk", "top"])
    def test_gradient_of_one_silo_job_moves_nothing_anywhere(
        self, segment: str, max_grad_norm: float | None, new_run: Any
    ) -> None:
        run = new_run("llama", max_grad_norm=max_grad_norm)
        run.step(0)
        before = run.everything()
        run.compute(1)
        blocks = run.silos[0]._blocks
        holder = {"bottom": blocks.bottom, "top": blocks.top, "trunk": run.trunk._segment}[segment]
        holder.trainable[-1][1].grad.view(-1)[0] = math.inf

        assert run.finish() == [False, False]
        assert identical(run.everything(), before)

    def test_loss_moves_nothing_anywhere(self, new_run: Any) -> None:
        run = new_run("llama", max_grad_norm=None)
        with torch.no_grad():
            run.silos[0]._blocks.top.trainable[-1][1].fill_(math.nan)
        before = run.everything()[1]
        loss_sum, _ = run.compute(0)
        assert math.isnan(loss_sum)
        assert not run.silos[0].outcome().finite
        assert run.finish() == [False, False]
        assert identical([run.everything()[1]], [before])

    def test_gradient_at_one_of_several_silos_stops_the_trunk_and_is_undone_at_the_others(
        self, new_run: Any, rows: Any
    ) -> None:
        run = new_run("llama", *(rows(name) for name in DATA), undoable=True)
        run.step(0)
        before = run.everything()
        run.compute(1)
        run.silos[1]._blocks.bottom.trainable[0][1].grad[0, 0] = math.nan

        assert run.finish() == [True, False, False]
        for silo in run.silos:
            silo.undo_step()
        assert identical(run.everything(), before)

    def test_gradient_of_the_trunk_stops_everyone(self, new_run: Any, rows: Any) -> None:
        run = new_run("llama", *(rows(name) for name in DATA))
        before = run.everything()
        run.compute(0)
        run.trunk._segment.trainable[0][1].grad[0] = math.inf
        assert run.finish() == [False, False, False]
        assert identical(run.everything(), before)


class TestUndo:
    @pytest.mark.parametrize("optimizer", [{"kind": "adamw"}, {"kind": "sgd", "momentum": 0.9}])
    @pytest.mark.parametrize("steps_before", [0, 3])
    def test_restores_and_repeats_bit_for_bit(
        self, steps_before: int, optimizer: dict[str, Any], new_run: Any, rows: Any
    ) -> None:
        run = new_run("llama-tied", *(rows(name) for name in DATA), undoable=True, optimizer=optimizer)
        for step in range(steps_before):
            run.step(step)
        before = run.silos[0].state()
        before = {key: value.clone() for key, value in before.items()}
        run.compute(steps_before)
        run.silos[0].finish_step(run.trunk.outcome())
        after = {key: value.clone() for key, value in run.silos[0].state().items()}

        run.silos[0].undo_step()
        assert identical([run.silos[0].state()], [before])

        run.compute(steps_before)
        run.silos[0].finish_step(run.trunk.outcome())
        assert identical([run.silos[0].state()], [after])
        assert not identical([after], [before])

    def test_drops_the_next_step_that_was_begun(self, new_run: Any, rows: Any) -> None:
        run = new_run("llama", *(rows(name) for name in DATA), undoable=True)
        run.step(0)
        silo, batch, key = run.silos[0], run.batches(1)[0][0], StepKey(5, 1, 1, 0)
        silo.begin_step(1, num_label_tokens=batch.num_label_tokens)
        early_ND = silo.bottom_forward(batch, key)
        silo.undo_step()
        silo.begin_step(1, num_label_tokens=batch.num_label_tokens)
        assert not torch.equal(silo.bottom_forward(batch, key), early_ND)

    def test_is_our_mistake_where_it_was_not_asked_for(self, new_run: Any) -> None:
        run = new_run("llama")
        run.step(0)
        with pytest.raises(AssertionError, match="not built undoable"):
            run.silos[0].undo_step()


class TestNoLabelTokens:
    def test_at_one_silo_leave_its_blocks_alone_and_give_zero_gradients(
        self, new_run: Any, rows: Any
    ) -> None:
        run = new_run("llama", rows("a"), rows("b", labelled=False))
        run.step(0)
        before = run.everything()
        run.compute(1)
        assert run.silos[1].outcome().num_tokens == 0
        assert set(run.silos[1].outcome().norms_top) == {0.0}
        assert run.finish() == [True, False, True]
        after = run.everything()
        assert identical(after[1:2], before[1:2])
        assert not identical(after[:1], before[:1])

    def test_anywhere_move_nothing(self, new_run: Any, rows: Any) -> None:
        run = new_run("llama", rows("a", labelled=False))
        before = run.everything()
        assert run.compute(0) == (0.0, 0)
        assert run.finish() == [False, False]
        assert identical(run.everything(), before)


class TestResume:
    @pytest.mark.parametrize("optimizer", [{"kind": "adamw"}, {"kind": "sgd", "momentum": 0.9}])
    def test_goes_on_bit_for_bit_from_checkpoints(
        self, optimizer: dict[str, Any], new_run: Any, rows: Any, tmp_path: Path
    ) -> None:
        data = [rows(name) for name in DATA]
        whole, first, second = (new_run("llama-tied", *data, optimizer=optimizer) for _ in range(3))
        whole_losses = whole.run()
        for step in range(10):
            first.step(step)

        for party in range(3):
            store = CheckpointStore(tmp_path / str(party), spec=first.spec, party="p", reserve_bytes=0)
            store.save([*first.silos, first.trunk][party].state(), round_number=1)
            [*second.silos, second.trunk][party].load_state(store.load(1))

        assert [second.step(step) for step in range(10, 20)] == whole_losses[10:]
        assert identical(second.everything(), whole.everything())

    def test_refuses_another_partys_state_and_changes_nothing(self, new_run: Any) -> None:
        run = new_run("llama")
        before = run.everything()
        with pytest.raises(StorageError, match="does not hold what is trained here"):
            run.silos[0].load_state(run.trunk.state())
        assert identical(run.everything(), before)


class TestMicroBatches:
    def test_may_be_in_flight_together_without_changing_a_bit(self, new_run: Any) -> None:
        """Two forwards ahead of the backwards give what one after the other gives."""
        plain = new_run("llama", accumulation_steps=2)
        plain.compute(0)
        ahead = new_run("llama", accumulation_steps=2)
        silo, trunk, batches = ahead.silos[0], ahead.trunk, ahead.batches(0)[0]
        count = sum(batch.num_label_tokens for batch in batches)
        silo.begin_step(0, num_label_tokens=count)
        trunk.begin_step(0, num_label_tokens=count)
        keys = [StepKey(5, 1, 0, index) for index in range(2)]
        hiddens = [
            trunk.forward([TrunkPart(batch.layout, silo.bottom_forward(batch, key))], key)[0]
            for batch, key in zip(batches, keys, strict=True)
        ]
        for batch, key, hidden_ND in zip(batches, keys, hiddens, strict=True):
            _, grad_ND = silo.top_loss_and_grad(hidden_ND, batch, key)
            silo.bottom_backward(
                key.micro_batch, trunk.backward(key.micro_batch, [grad_ND], weights=[1.0])[0]
            )
        assert silo.outcome() == plain.silos[0].outcome()
        assert trunk.outcome() == plain.trunk.outcome()


class TestUnequalBatches:
    def test_give_the_gradient_of_the_mean_over_all_label_tokens(self, new_run: Any, rows: Any) -> None:
        data = [rows("a"), rows("b", longest=5), rows("c", labelled=False)]
        run = new_run("llama", *data, silo_blocks="frozen")
        run.plans = [
            BatchPlan(silo.training, batch_size=size, seed=0, silo_name=silo.name, pad_token_id=0)
            for silo, size in zip(data, (1, 5, 2), strict=True)
        ]
        run.compute(0)

        union = concatenate_batches([own[0] for own in run.batches(0)], pad_token_id=0)
        whole = AutoModelForCausalLM.from_pretrained(run.folder)
        whole(
            input_ids=union.input_ids_BT, attention_mask=union.layout.attention_mask(), labels=union.labels_BT
        ).loss.backward()
        expected = dict(whole.named_parameters())
        for name, parameter in run.trunk._segment.trainable:
            gradient = expected[name].grad
            assert gradient is not None
            # 1,700 roundings on the longest path, as in test_exactness, each of the gradient's size
            limit = math.sqrt(1700) * torch.finfo(torch.float32).eps * float(gradient.abs().max())
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=limit)


class TestFrozen:
    def test_keeps_no_graph_asks_for_no_gradient_and_never_moves(self, new_run: Any) -> None:
        run = new_run("llama", silo_blocks="frozen")
        silo, batch, key = run.silos[0], run.batches(0)[0][0], StepKey(5, 1, 0, 0)
        silo.begin_step(0, num_label_tokens=batch.num_label_tokens)
        run.trunk.begin_step(0, num_label_tokens=batch.num_label_tokens)
        hidden_ND = silo.bottom_forward(batch, key)
        (above_ND,) = run.trunk.forward([TrunkPart(batch.layout, hidden_ND)], key)
        _, grad_ND = silo.top_loss_and_grad(above_ND, batch, key)
        assert silo._in_flight == {0: None}
        assert run.trunk.backward(0, [grad_ND], weights=[1.0]) == [None]
        silo.bottom_backward(0, None)
        assert silo.state() == {}
        assert silo.outcome().norms_bottom == silo.outcome().norms_top == ()


class TestPeersFault:
    def test_wrong_shapes_are_refused(self, new_run: Any) -> None:
        run = new_run("llama")
        silo, batch, key = run.silos[0], run.batches(0)[0][0], StepKey(5, 1, 0, 0)
        silo.begin_step(0, num_label_tokens=batch.num_label_tokens)
        run.trunk.begin_step(0, num_label_tokens=batch.num_label_tokens)
        hidden_ND = silo.bottom_forward(batch, key)
        with pytest.raises(ProtocolError, match="hidden of silo 0"):
            run.trunk.forward([TrunkPart(batch.layout, hidden_ND[1:])], key)
        (above_ND,) = run.trunk.forward([TrunkPart(batch.layout, hidden_ND)], key)
        with pytest.raises(ProtocolError, match="hidden of micro-batch 0"):
            silo.top_loss_and_grad(above_ND[:, 1:], batch, key)
        _, grad_ND = silo.top_loss_and_grad(above_ND, batch, key)
        with pytest.raises(ProtocolError, match="gradient 0 of micro-batch 0"):
            run.trunk.backward(0, [grad_ND[1:]], weights=[1.0])
        with pytest.raises(ProtocolError, match="gradient of micro-batch 0"):
            silo.bottom_backward(0, grad_ND[1:])

    @pytest.mark.parametrize(("blocks", "sent"), [("local", None), ("frozen", torch.zeros(1, 32))])
    def test_a_gradient_where_none_is_due_or_none_where_one_is(
        self, blocks: str, sent: Tensor | None, new_run: Any
    ) -> None:
        run = new_run("llama", silo_blocks=blocks)
        batch = run.batches(0)[0][0]
        run.silos[0].begin_step(0, num_label_tokens=batch.num_label_tokens)
        run.silos[0].bottom_forward(batch, StepKey(5, 1, 0, 0))
        with pytest.raises(ProtocolError, match="bottom"):
            run.silos[0].bottom_backward(0, sent)


class TestEvaluate:
    def test_scores_rows_as_the_uncut_model_does_without_dropout_or_trace(self, new_run: Any) -> None:
        run = new_run("gpt2-dropout")
        silo, batch = run.silos[0], run.batches(0)[0][0]
        state = torch.get_rng_state()
        hidden_ND = run.trunk.evaluate(TrunkPart(batch.layout, silo.evaluate_bottom(batch)))
        scores = silo.evaluate(hidden_ND, batch)

        whole = AutoModelForCausalLM.from_pretrained(run.folder).eval()
        mask = batch.layout.attention_mask()
        with torch.no_grad():
            logits = whole(input_ids=batch.input_ids_BT, attention_mask=mask).logits.double()
        for row, score in enumerate(scores):
            targets = batch.labels_BT[row, 1:]
            chosen = (
                logits[row, :-1]
                .log_softmax(-1)[targets != -100]
                .gather(1, targets[targets != -100].unsqueeze(1))
            )
            assert score.log_likelihood == pytest.approx(float(chosen.sum()), rel=1e-6)  # fp32 softmax
            assert score.num_tokens == int((targets != -100).sum())
        assert torch.equal(torch.get_rng_state(), state)
        assert run.trunk._segment.training
        assert not hidden_ND.requires_grad

    def test_goes_through_an_empty_batch(self, new_run: Any) -> None:
        run = new_run("llama")
        empty = TrunkPart(BatchLayout(()), torch.zeros(0, 32))
        assert run.trunk.evaluate(empty).shape == (0, 32)
