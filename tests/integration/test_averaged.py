"""Silo blocks averaged by a secure sum, in whole jobs through the sealed channel.

The sum itself is tested in ``tests/unit/privacy``; here it has to come at the right moments, with the right
weights, and leave nothing else behind than the uncut model would.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from splitlearn.errors import StorageError, UnservedError
from splitlearn.parties import BlocksAveraged, Progress, RoundFinished
from splitlearn.privacy import FixedPointError
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.federation import TRUNK_PARTY
from splitlearn.wire import Codec, Direction, SumPart, SumTotal, decode_message, encode_message
from tests.integration.conftest import LORA, Job, NewJob, assert_same, silo_rows
from tests.integration.recording import recording
from tests.integration.test_exactness import BOUND, EPSILON, STEPS

SILOS = 3
FRACTION_BITS = 24
SGD = {"kind": "sgd"}


def averaged_job(new_job: NewJob, model: str = "llama", **fields: Any) -> Job:
    """Three silos with unequal rows and lengths; in some steps one of them has no label token."""
    data = [
        silo_rows("a", longest=12),
        silo_rows("b", longest=7, num_rows=9),
        silo_rows("c", num_rows=7, unlabelled=lambda number: number < 5),
    ]
    return new_job(model, *data, silo_blocks="averaged", **{"batch_size": 2, **fields})


def every_step(**fields: Any) -> dict[str, Any]:
    """One step of SGD without clipping between any two averages."""
    return {
        "optimizer": SGD,
        "max_grad_norm": None,
        "averaging": {"every_steps": 1, "fraction_bits": FRACTION_BITS},
        # Large steps: what training adds stands far above all rounding.
        "learning_rate": {"peak": 0.05},
        **fields,
    }


def blocks(job: Job, silo: str) -> dict[str, torch.Tensor]:
    """The silo's trained tensors after the last round."""
    return {key: value for key, value in job.state(silo).items() if key.startswith("parameter/")}


def assert_whole_model_close(job: Job, *, within: float = 1.0) -> None:
    """Compare every silo's whole model with the uncut one trained on the union.

    Each sum is off by at most K / 2 fixed-point steps; over STEPS sums these add up. That the error of one
    step bends the gradients of the next is of second order: the rate of 0.05 times the error. To this comes
    fp32: what test_exactness allows the trunk, for the same reasons, and one rounding more per step for
    storing base plus change.
    """
    reference = train_centralised(job.spec, job.folder, job.data)
    start = {name: tensor for name, tensor in untrained(job).items() if name in reference.state}
    fixed_point = STEPS * SILOS / 2 * 2.0**-FRACTION_BITS
    moved = set()
    for silo in job.spec.silos:
        found = job.trained(silo.name)
        assert found.keys() == reference.state.keys()
        for name, value in reference.state.items():
            added = float((value - start[name]).abs().max()) if name in start else float(value.abs().max())
            fp32 = BOUND * added + 2 * STEPS * EPSILON * float(value.abs().max())
            error = float((found[name] - value).abs().max())
            assert error <= within * (fixed_point + fp32), f"{name}: {error:g}"
            if added > 100 * (fixed_point + fp32):
                moved.add(name)
    assert len(moved) > len(reference.state) / 2, "training moved the tensors far more than the bound"


def untrained(job: Job) -> dict[str, torch.Tensor]:
    """The base model's tensors."""
    tensors: dict[str, torch.Tensor] = {}
    for file in job.folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


class TestEqualsTheUncutModel:
    @pytest.mark.parametrize("variant", ["llama", "llama-tied"])
    def test_whole_when_averaged_after_every_step(self, variant: str, new_job: NewJob) -> None:
        job = averaged_job(new_job, variant, **every_step())
        result = job.run()
        assert_whole_model_close(job)
        steps = [[silo.steps[number] for silo in result.silos] for number in range(STEPS)]
        assert any(0 in {part.num_label_tokens for part in step} for step in steps)

    def test_with_lora_that_trains_b_alone(self, new_job: NewJob) -> None:
        job = averaged_job(new_job, **every_step(adapter={**LORA, "freeze_a": True}))
        job.run()
        reference = train_centralised(job.spec, job.folder, job.data)
        assert reference.state
        assert not [name for name in reference.state if "lora_A" in name]
        fixed_point = STEPS * SILOS / 2 * 2.0**-FRACTION_BITS
        for name, value in reference.state.items():
            limit = fixed_point + (BOUND + 2 * STEPS * EPSILON) * float(value.abs().max())
            assert float((job.trained("b")[name] - value).abs().max()) <= limit, name

    def test_not_when_averaged_at_the_rounds_end_only(self, new_job: NewJob) -> None:
        """The comparison can fail: ten steps between averages are another training."""
        job = averaged_job(new_job, **every_step(averaging={"fraction_bits": FRACTION_BITS}))
        job.run()
        with pytest.raises(AssertionError, match="model"):
            assert_whole_model_close(job)


class TestMoments:
    @pytest.mark.parametrize("moments", ["local", "reset"])
    def test_stay_the_silos_own_or_begin_anew(self, moments: str, new_job: NewJob) -> None:
        job = averaged_job(new_job, averaging={"moments": moments})
        job.run()
        own = [
            {key: value for key, value in job.state(name).items() if key.startswith("optimizer/exp_avg/")}
            for name in "abc"
        ]
        if moments == "reset":  # the round ends with an average
            assert own == [{}, {}, {}]
        else:
            assert own[0]
            assert all(
                not torch.equal(value, other[key]) for other in own[1:] for key, value in own[0].items()
            )


class TestSchedules:
    @pytest.mark.parametrize(
        ("fields", "sums"),
        [
            ({}, [(1, 10), (2, 10)]),
            ({"averaging": {"every_steps": 4}}, [(1, 4), (1, 8), (1, 10), (2, 4), (2, 8), (2, 10)]),
            ({"schedule": "serial", "turn_steps": 5}, [(1, 10), (2, 10)]),
            ({"adapter": LORA}, [(1, 10), (2, 10)]),
        ],
    )
    def test_leave_all_silos_with_the_same_blocks(
        self, fields: dict[str, Any], sums: list[tuple[int, int]], new_job: NewJob
    ) -> None:
        heard: list[Progress] = []
        job = averaged_job(new_job, **fields)
        result = job.run(on_progress=heard.append)
        averaged = [event for event in heard if isinstance(event, BlocksAveraged)]
        assert [(event.round, event.step) for event in averaged] == sums
        assert all(event.averaged and event.silos == ("a", "b", "c") for event in averaged)
        assert blocks(job, "a")
        assert_same(blocks(job, "a"), blocks(job, "b"))
        assert_same(blocks(job, "a"), blocks(job, "c"))
        assert math.isfinite(result.eval_loss)

    def test_evaluate_with_the_average(self, new_job: NewJob) -> None:
        """All silos hold one model, so that equal held-out rows score equally at all of them."""
        data = [silo_rows(name) for name in "abc"]
        same = [type(each)(each.name, each.training, data[0].heldout, each.report) for each in data]
        job = new_job("llama", *same, silo_blocks="averaged", evaluation={"every_rounds": 1, "batch_size": 2})
        result = job.run()
        for number in (1, 2):
            [losses] = {
                tuple(found.loss for found in silo.evaluations if found.round == number)
                for silo in result.silos
            }
            assert len(losses) == 1


class TestResume:
    def test_goes_on_as_if_nothing_had_happened(self, new_job: NewJob) -> None:
        """Masks differ from run to run; what they hide does not."""
        undisturbed = averaged_job(new_job, rounds=3, steps_per_round=3, averaging={"every_steps": 2})
        undisturbed.run()
        broken = averaged_job(new_job, rounds=3, steps_per_round=3, averaging={"every_steps": 2})
        self.run_until(broken, lambda event: isinstance(event, BlocksAveraged) and event.round == 2)
        assert (broken.work_dir / "silos" / "a" / "sums.json").exists()
        broken.run(resume=True)
        assert_same(undisturbed.everything(), broken.everything())

    def test_sums_nothing_again_over_other_silos_but_begins_anew(self, new_job: NewJob) -> None:
        job = averaged_job(new_job, steps_per_round=2)
        self.run_until(job, lambda event: isinstance(event, RoundFinished))
        record = job.work_dir / "silos" / "b" / "sums.json"
        record.write_text("{")
        with pytest.raises(StorageError, match="is no record of secure sums"):
            job.run(resume=True)
        job.run()  # anew: a job of its own, with checkpoints and sums of its own
        assert '"last_attempt": 2' in record.read_text()

    def run_until(self, job: Job, is_enough: Callable[[Progress], bool]) -> None:
        def stop(event: Progress) -> None:
            if is_enough(event):
                raise InterruptedError

        with pytest.raises(InterruptedError):
            job.run(on_progress=stop)


class TestWhatLeaves:
    def test_is_on_the_closed_list_and_masked(self, new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
        """No masked word is the word that it hides; all that was said reads as the list says."""
        recorder = recording(monkeypatch)
        job = averaged_job(new_job, rounds=1, steps_per_round=2)
        job.run()
        names = set()
        for (_, direction), said in recorder.said.items():
            for encoded in said:
                message, ack = decode_message(encoded, direction=direction)
                names.add(type(message).__name__)
                assert bytes(encode_message(message, codec=Codec.FP32, ack=ack)) == encoded
        assert {name for name in names if name.startswith("Sum")} == {
            "SumStart",
            "SumKey",
            "SumRoster",
            "SumConsent",
            "SumConsents",
            "SumPart",
            "SumTotal",
            "SumEnd",
            "SumDone",
        }
        change = np.concatenate(
            [
                (value - untrained(job)[key.removeprefix("parameter/")]).numpy().reshape(-1)
                for key, value in blocks(job, "a").items()
            ]
        ).astype(np.float64)
        average = np.rint(change * 2.0**FRACTION_BITS).astype(np.int64).astype(np.uint32)
        for direction, kind in (
            (Direction.SILO_TO_TRUNK, SumPart),
            (Direction.TRUNK_TO_SILO, SumTotal),
        ):
            for name in "abc":
                [part] = [each for each in recorder.messages(name, direction) if isinstance(each, kind)]
                # Of some ten thousand words, equal ones by chance would be one in 2^32 each.
                assert not (part.words == average).any()


class TestRefusals:
    def test_a_value_that_does_not_fit_ends_the_job_and_names_the_tensor(self, new_job: NewJob) -> None:
        job = averaged_job(
            new_job,
            optimizer=SGD,
            max_grad_norm=None,
            averaging={"fraction_bits": 30},
            learning_rate={"peak": 10},
        )
        with pytest.raises(FixedPointError, match=r"the tensor \S*weight changed by .*fraction_bits"):
            job.run()

    def test_a_lost_silo_is_waited_for(self, new_job: NewJob) -> None:
        job = averaged_job(new_job, on_lost_silo="continue")
        with pytest.raises(UnservedError, match="what was summed with a silo is not summed again without it"):
            job.run()

    def test_a_job_without_averages_keeps_no_record(self, new_job: NewJob, tmp_path: Path) -> None:
        job = new_job("llama", *(silo_rows(name) for name in "abc"), rounds=1, steps_per_round=1)
        job.run()
        assert not (job.work_dir / "silos" / "a" / "sums.json").exists()
        assert TRUNK_PARTY not in {path.name for path in tmp_path.iterdir()}
