"""The scale of fp16's loss as a table, and a split run in half precision; see also test_exactness."""

from pathlib import Path
from typing import Any

import pytest
import torch

from splitlearn.errors import ProtocolError, StorageError
from splitlearn.simulation.centralised import train_centralised
from splitlearn.training import CheckpointStore, LossScale, StepKey, computes_in
from splitlearn.training.precision import GROWTH_STEPS, MAX_LOSS_SCALE_EXPONENT, split_loss_scale

LAST = GROWTH_STEPS - 1


class TestLossScale:
    @pytest.mark.parametrize(
        ("before", "finite", "after"),
        [
            (LossScale(16, 0), True, LossScale(16, 1)),
            (LossScale(16, 7), False, LossScale(15, 0)),
            (LossScale(0, 7), False, LossScale(0, 0)),
            (LossScale(16, LAST), True, LossScale(17, 0)),
            (LossScale(16, LAST), False, LossScale(15, 0)),
            (LossScale(MAX_LOSS_SCALE_EXPONENT, LAST), True, LossScale(MAX_LOSS_SCALE_EXPONENT, 0)),
        ],
        ids=["good", "overflow", "lowest", "grows", "overflow-before-it-grows", "highest"],
    )
    def test_follows_from_the_steps_outcome(
        self, *, before: LossScale, finite: bool, after: LossScale
    ) -> None:
        assert before.after(finite=finite) == after

    def test_outlives_a_checkpoint(self) -> None:
        weight = torch.ones(2)
        scale, rest = split_loss_scale({**LossScale(9, 41).state(), "parameter/w": weight})
        assert (scale, rest) == (LossScale(9, 41), {"parameter/w": weight})

    @pytest.mark.parametrize("values", [[25, 0], [-1, 0], [3, GROWTH_STEPS], [3], [[3, 0]]])
    def test_that_cannot_be_is_refused(self, values: Any) -> None:
        with pytest.raises(StorageError, match="scale of the loss"):
            split_loss_scale({"loss_scale": torch.tensor(values)})


def begin_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a scale under which fp16's gradients overflow, in the split run and in the reference."""
    for module in ("training.trunk", "simulation.centralised"):
        monkeypatch.setattr(f"splitlearn.{module}.first_loss_scale", lambda _: LossScale(24))


class TestOverflow:
    def test_skips_the_step_everywhere_and_halves_as_the_uncut_model_does(
        self, new_run: Any, same: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin_too_high(monkeypatch)
        run = new_run("llama", precision="fp16")
        before = run.everything()[0]
        run.compute(0)

        assert run.finish() == [False, False]
        assert run.trunk.loss_scale_exponent == 23
        same(run.everything()[0], before)

        whole = new_run("llama", precision="fp16")
        losses = whole.run()
        reference = train_centralised(whole.spec, whole.folder, whole.data)
        assert losses == list(reference.losses)
        same(whole.parameters(), reference.state)
        assert 0 < whole.trunk.loss_scale_exponent < 23

    def test_at_one_of_several_silos_with_frozen_blocks_is_known_to_the_trunk_that_scales(
        self, new_run: Any, rows: Any
    ) -> None:
        """No silo is told of the others' outcomes there, and none needs to be."""
        run = new_run("llama", rows("a"), rows("b"), precision="fp16", silo_blocks="frozen")
        run.compute(0)
        run.silos[1]._loss_is_finite = False
        run.finish()
        assert run.trunk.loss_scale_exponent == 15

    def test_resumes_with_the_scale_that_it_had(
        self, new_run: Any, same: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        begin_too_high(monkeypatch)
        whole, first, second = (new_run("llama", precision="fp16") for _ in range(3))
        losses = whole.run()
        for step in range(10):
            first.step(step)
        monkeypatch.undo()
        for number, (left, right) in enumerate(
            [(first.silos[0], second.silos[0]), (first.trunk, second.trunk)]
        ):
            store = CheckpointStore(tmp_path / str(number), spec=first.spec, party="p", reserve_bytes=0)
            store.save(left.state(), round_number=1)
            right.load_state(store.load(1))

        assert [second.step(step) for step in range(10, 20)] == losses[10:]
        for left, right in zip(second.everything(), whole.everything(), strict=True):
            same(left, right)


class TestSilo:
    @pytest.mark.parametrize(
        ("precision", "exponents"), [("fp32", (1,)), ("bf16", (16,)), ("fp16", (25,)), ("fp16", (16, 15))]
    )
    def test_refuses_a_scale_that_is_not_the_steps(
        self, precision: str, exponents: tuple[int, ...], new_run: Any
    ) -> None:
        run = new_run("llama", precision=precision)
        silo, batch, key = run.silos[0], run.batches(0)[0][0], StepKey(5, 1, 0, 0)
        silo.begin_step(0, num_label_tokens=batch.num_label_tokens)
        hidden_ND = torch.zeros(batch.layout.num_valid, 32)
        for exponent in exponents[:-1]:
            silo.top_loss_and_grad(hidden_ND, batch, key, loss_scale_exponent=exponent)
        with pytest.raises(ProtocolError, match=rf"scales the loss by 2\^{exponents[-1]}"):
            silo.top_loss_and_grad(hidden_ND, batch, key, loss_scale_exponent=exponents[-1])

    def test_scales_the_gradient_and_not_the_loss(self, new_run: Any) -> None:
        run = new_run("llama", precision="fp16")
        silo, batch, key = run.silos[0], run.batches(0)[0][0], StepKey(5, 1, 0, 0)
        hidden_ND = torch.randn(batch.layout.num_valid, 32, generator=torch.Generator().manual_seed(1))
        found = []
        for exponent in (0, 3):
            silo.begin_step(0, num_label_tokens=batch.num_label_tokens)
            found.append(silo.top_loss_and_grad(hidden_ND, batch, key, loss_scale_exponent=exponent))
        assert found[0][0] == found[1][0]
        # Below 2^-14 fp16 rounds more coarsely: the scaled gradient is the finer one.
        torch.testing.assert_close(found[1][1] / 8, found[0][1], rtol=2**-10, atol=2**-20)


class TestPrecision:
    def test_half_is_what_is_computed_in(self, new_run: Any) -> None:
        """Not what fp32 says, but near it: bf16 has 8 binary digits, and the loss is a mean."""
        losses = [new_run("llama", precision=word).step(0) for word in ("fp32", "bf16", "fp16")]
        assert len(set(losses)) == 3
        assert losses[1:] == pytest.approx([losses[0]] * 2, rel=2**-8)

    def test_parameters_gradients_and_moments_stay_fp32(self, new_run: Any) -> None:
        run = new_run("llama", precision="bf16")
        run.step(0)
        tensors = [value for state in run.everything() for value in state.values()]
        assert {value.dtype for value in tensors} == {torch.float32}

    def test_the_processor_computes_in_all_of_them(self) -> None:
        assert computes_in("fp32", torch.device("cpu"))
        assert computes_in("bf16", torch.device("cpu"))
