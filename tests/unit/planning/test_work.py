"""What is computed, against a count of the operations that torch does."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from splitlearn.planning import NOMINAL_SPEED, Rate, Role, Speed, Training
from splitlearn.planning.work import batch_work, update_work
from splitlearn.spec import JobSpec
from tests.unit.planning.made_up import INNER, LAYERS, SPEED, VOCABULARY, WIDTH, cut_of, job, llama

ROWS, TOKENS = 2, 16
LAYER_MATRICES = 4 * WIDTH * WIDTH + 3 * WIDTH * INNER


def work(role: Role, spec: JobSpec) -> Any:
    folder = llama()
    return batch_work(folder, cut_of(folder), role, Training.of(spec, role, num_silos=1))


class TestBatchWork:
    def test_of_a_trunk_is_what_torch_counts(self) -> None:
        config = LlamaConfig(
            vocab_size=1,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS - 2,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=None,
        )
        model: Any = LlamaModel._from_config(config, attn_implementation="eager")
        hidden_BTD = torch.zeros(ROWS, TOKENS, WIDTH, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            model(inputs_embeds=hidden_BTD, use_cache=False).last_hidden_state.sum().backward()
        counted = counter.get_total_flops()
        # Rotary positions are products too, and are not counted here: less than a hundredth.
        assert work(Role.TRUNK, job(1)).flops == pytest.approx(counted, rel=0.01)

    def test_a_frozen_bottom_goes_forward_alone(self) -> None:
        trained, frozen = (work(Role.BOTTOM, job(silo_blocks=blocks)) for blocks in ("local", "frozen"))
        assert frozen.flops == pytest.approx(trained.flops / 3)
        assert (frozen.layer_calls, trained.layer_calls) == (1.0, 2.0)  # the segment is called, too

    def test_of_a_frozen_top_no_weight_has_a_gradient(self) -> None:
        trained, frozen = (work(Role.TOP, job(silo_blocks=blocks)) for blocks in ("local", "frozen"))
        spared = 2 * (LAYER_MATRICES + VOCABULARY * WIDTH) * ROWS * TOKENS
        assert trained.flops - frozen.flops == pytest.approx(spared)

    def test_an_adapter_spares_the_weights_gradients(self) -> None:
        spec = job(adapter={"kind": "lora", "r": 1, "targets": ["q_proj"]})
        spared = work(Role.TRUNK, job()).flops - work(Role.TRUNK, spec).flops
        added = 3 * 2 * (2 * WIDTH) * (LAYERS - 2) * ROWS * TOKENS
        assert spared == pytest.approx(2 * LAYER_MATRICES * (LAYERS - 2) * ROWS * TOKENS - added)

    def test_what_is_recomputed_passes_a_layer_once_more(self) -> None:
        plain, again = (work(Role.TRUNK, job(gradient_checkpointing=on)) for on in (False, True))
        assert again.flops == pytest.approx(4 / 3 * plain.flops)
        assert again.layer_calls == pytest.approx(1.5 * plain.layer_calls)

    def test_a_trunk_of_all_silos_computes_all_their_rows(self) -> None:
        folder = llama()
        one, all_ = (
            batch_work(folder, cut_of(folder), Role.TRUNK, Training.of(job(), Role.TRUNK, num_silos=number))
            for number in (1, 4)
        )
        assert all_.flops == 4 * one.flops
        assert all_.layer_calls == one.layer_calls

    def test_logits_pass_the_loss_at_the_top_alone(self) -> None:
        assert [work(role, job()).logits for role in Role] == [0, 0, VOCABULARY * ROWS * TOKENS]


class TestUpdateWork:
    def test_counts_what_is_trained(self) -> None:
        folder = llama()
        spec = job()
        found = update_work(folder, cut_of(folder), Role.TRUNK, Training.of(spec, Role.TRUNK), undoable=True)
        assert found.updates == (LAYERS - 2) * (LAYER_MATRICES + 2 * WIDTH)

    def test_a_silo_that_is_not_alone_copies_before_every_step(self) -> None:
        folder, spec = llama(), job()
        alone, one_of_many = (
            update_work(
                folder, cut_of(folder), Role.TOP, Training.of(spec, Role.TOP), undoable=undoable
            ).updates
            for undoable in (False, True)
        )
        assert one_of_many > alone

    def test_frozen_blocks_are_not_moved(self) -> None:
        folder, spec = llama(), job(silo_blocks="frozen")
        found = update_work(folder, cut_of(folder), Role.TOP, Training.of(spec, Role.TOP), undoable=True)
        assert found.updates == 0


class TestSpeed:
    def test_work_takes_the_sum_of_its_parts(self) -> None:
        found = work(Role.TOP, job())
        at_least = found.layer_calls * 0.01 + found.flops / 1e9 + found.logits / 1e6
        assert at_least < found.seconds(SPEED) < at_least + 0.5 * found.flops / 1e9

    def test_between_two_widths_the_rate_is_between_theirs(self) -> None:
        speed = Speed(1.0, (Rate(64, 1e9), Rate(256, 4e9)), 1.0, 1.0)
        assert speed.flops_per_second(128) == pytest.approx(2e9)
        assert speed.flops_per_second(8) == 1e9
        assert speed.flops_per_second(4096) == 4e9

    def test_twice_as_fast_takes_half_as_long(self) -> None:
        found = work(Role.TOP, job())
        assert found.seconds(NOMINAL_SPEED.times(2)) == pytest.approx(found.seconds(NOMINAL_SPEED) / 2)
