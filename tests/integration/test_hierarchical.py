"""Several replicas of the trunk, each with its share of the silos, averaged at every round's end."""

import asyncio
import shutil
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from safetensors.torch import load_file

from splitlearn.parties import BlocksAveraged, Progress, RoundFinished, StepDone, TurnStarted
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.federation import Federation
from splitlearn.wire import Phase
from tests.integration.conftest import Heard, Job, NewJob, assert_same, silo_rows
from tests.integration.test_averaged import assert_whole_model_close, averaged_job, blocks, every_step
from tests.integration.test_exactness import BOUND, EPSILON, STEPS, DelayingLines, start_of

TWO: dict[str, Any] = {"schedule": "hierarchical", "replicas": 2}
AFTER_EVERY_STEP: dict[str, Any] = {"rounds": STEPS, "steps_per_round": 1}


def three_silos(new_job: NewJob, model: str = "llama", **fields: Any) -> Job:
    """Two silos at one replica and one at the other, which has nothing to learn from in some steps."""
    data = [
        silo_rows("a", longest=12),
        silo_rows("b", longest=7, num_rows=9),
        silo_rows("c", num_rows=7, unlabelled=lambda number: number < 5),
    ]
    return new_job(model, *data, **{**TWO, "silo_blocks": "frozen", "batch_size": 2, **fields})


class TestEqualsTheUncutModel:
    """One step between any two averages is one step on the union of all replicas' batches."""

    def step(self, **fields: Any) -> dict[str, Any]:
        return {
            "optimizer": {"kind": "sgd"},
            "max_grad_norm": None,
            "learning_rate": {"peak": 0.05},
            **fields,
        }

    def assert_trunk_close(self, job: Job) -> None:
        """As test_exactness bounds client-batching, but for storing: here each step rounds a tensor twice.

        The first time at each replica, the second when their average is stored.
        """
        reference, start = train_centralised(job.spec, job.folder, job.data), start_of(job)
        trained = {name: value for name, value in job.trained("a").items() if name in start}
        assert trained.keys() == reference.state.keys()
        for name, value in reference.state.items():
            added = float((value - start[name]).abs().max())
            limit = BOUND * added + 2 * STEPS * EPSILON * float(value.abs().max())
            assert added > 10 * limit, f"{name} was hardly trained: the comparison would say nothing"
            assert float((trained[name] - value).abs().max()) <= limit, name

    def test_when_replicas_are_averaged_after_every_step(self, new_job: NewJob) -> None:
        job = three_silos(new_job, **AFTER_EVERY_STEP, **self.step())
        result = job.run()
        self.assert_trunk_close(job)
        replica = result.silos[2]
        assert 0 in {step.num_label_tokens for step in replica.steps}, (
            "a replica without a token adds nothing"
        )

    def test_not_when_they_are_averaged_after_ten(self, new_job: NewJob) -> None:
        """The comparison can fail."""
        job = three_silos(new_job, **self.step())
        job.run()
        with pytest.raises(AssertionError, match="model"):
            self.assert_trunk_close(job)

    def test_whole_when_the_silos_blocks_are_averaged_too(self, new_job: NewJob) -> None:
        fields = every_step(**TWO, **AFTER_EVERY_STEP)
        fields["averaging"] = {"fraction_bits": fields["averaging"]["fraction_bits"]}
        job = averaged_job(new_job, **fields)
        job.run()
        assert_whole_model_close(job)


class TestAverage:
    def test_is_what_every_silo_gets(self, new_job: NewJob) -> None:
        job = three_silos(new_job, rounds=2, steps_per_round=3)
        job.run()
        results = [
            {
                key: value
                for file in (job.work_dir / "silos" / name / "result").glob("*.safetensors")
                for key, value in load_file(file).items()
            }
            for name in "abc"
        ]
        assert_same(results[0], results[1])
        assert_same(results[0], results[2])
        trunk = {
            key.removeprefix("parameter/"): value
            for key, value in job.trunk().items()
            if key.startswith("parameter/")
        }
        assert trunk
        assert_same({key: results[2][key] for key in trunk}, trunk)

    def test_is_one_replicas_own_where_the_other_has_no_silo(self, new_job: NewJob) -> None:
        """Bit for bit what one trunk trains with the silos that are left, AdamW's moments included."""
        shape: dict[str, Any] = {"rounds": 3, "steps_per_round": 2, "silo_blocks": "local"}
        runs = []
        for fields in (TWO, {"schedule": "client-batching", "replicas": 1}):
            job = three_silos(new_job, "gpt2-dropout", **shape, **fields)
            job.data = job.data[:2]
            runs.append((job, job.run(lost=["c"])))
        (replicated, first), (single, second) = runs
        assert [silo.eval_loss for silo in first.silos] == [silo.eval_loss for silo in second.silos]
        assert_same(replicated.trunk(), single.trunk())

    def test_leaves_moments_as_the_specification_says(self, new_job: NewJob) -> None:
        """Two runs agree; whether moments are averaged shows in what a replica contributes next."""
        jobs = [
            three_silos(new_job, rounds=2, steps_per_round=2, replica_moments=moments)
            for moments in ("kept", "kept", "averaged")
        ]
        for job in jobs:
            job.run()
        assert_same(jobs[0].everything(), jobs[1].everything())
        with pytest.raises(AssertionError, match="tensors differ"):
            assert_same(jobs[0].state("trunk-1"), jobs[2].state("trunk-1"))

    def test_of_blocks_is_one_sum_over_all_silos_of_the_job(self, new_job: NewJob) -> None:
        heard = Heard(BlocksAveraged)
        job = averaged_job(new_job, **TWO, replica_schedule="serial", turn_steps=2, steps_per_round=3)
        job.run(on_progress=heard)
        assert [(each.round, each.step, each.silos, each.averaged) for each in heard.reports] == [
            (number, 3, ("a", "b", "c"), True) for number in (1, 2)
        ]
        assert_same(blocks(job, "a"), blocks(job, "c"))


class TestOrder:
    def test_of_arrival_changes_nothing(self, new_job: NewJob) -> None:
        runs = []
        for seed in (1, 2):
            job = three_silos(
                new_job,
                "gpt2-dropout",
                rounds=2,
                steps_per_round=4,
                silo_blocks="local",
                replica_schedule="serial",
                turn_steps=2,
            )
            heard = Heard(StepDone)
            job.run(make_lines=lambda names, seed=seed: DelayingLines(names, seed=seed), on_progress=heard)
            runs.append((job.everything(), heard.reports))
        assert_same(runs[0][0], runs[1][0])
        steps = {name: [step.step for step in runs[0][1] if step.silo == name] for name in "abc"}
        # Rounds of 8 global steps, for two silos take turns at a replica; the other's one is through after 4.
        assert steps == {
            "a": [0, 1, 4, 5, 10, 11, 14, 15],
            "b": [2, 3, 6, 7, 8, 9, 12, 13],
            "c": [*range(4), *range(8, 12)],
        }


class TestResume:
    SHAPE: ClassVar[dict[str, Any]] = {
        "rounds": 3,
        "steps_per_round": 2,
        "evaluation": {"every_rounds": 1, "batch_size": 5},
    }

    def told(self, result: Any) -> list[Any]:
        return [
            (
                [(step.step, repr(step.loss), step.applied) for step in silo.steps],  # also NaN equals itself
                [(found.round, found.loss, found.num_tokens) for found in silo.evaluations],
            )
            for silo in result.silos
        ]

    def cancel(self, job: Job, is_enough: Callable[[Progress], bool]) -> None:
        made: list[Federation] = []

        def cancel(progress: Progress) -> None:
            if is_enough(progress):
                made[0].cancel()

        made.append(
            Federation(
                job.spec, model_folder=job.folder, data=job.data, work_dir=job.work_dir, on_progress=cancel
            )
        )
        with pytest.raises(asyncio.CancelledError):
            made[0].run()

    @pytest.mark.parametrize(
        ("fields", "is_enough"),
        [
            (
                {"silo_blocks": "local"},
                lambda it: isinstance(it, StepDone) and (it.silo, it.round) == ("c", 2),
            ),
            (
                {"silo_blocks": "averaged", "replica_moments": "kept"},
                lambda it: isinstance(it, RoundFinished) and (it.round, it.replica) == (2, 1),
            ),
            (
                {"replica_schedule": "serial"},
                lambda it: isinstance(it, TurnStarted) and (it.phase, it.round) == (Phase.EVAL, 3),
            ),
        ],
        ids=["in-a-round", "between-a-sum-and-the-next-round", "in-the-last-evaluation"],
    )
    def test_after_an_end_anywhere(
        self, fields: dict[str, Any], is_enough: Callable[[Progress], bool], new_job: NewJob
    ) -> None:
        whole = three_silos(new_job, **{**self.SHAPE, **fields})
        expected = whole.run()
        assert [found.round for found in expected.silos[0].evaluations] == [0, 1, 2, 3]
        broken = three_silos(new_job, **{**self.SHAPE, **fields})
        self.cancel(broken, is_enough)
        assert self.told(broken.run(resume=True)) == self.told(expected)
        assert_same(broken.everything(), whole.everything())

    @pytest.mark.parametrize("loser", ["c", "trunk-1"])
    def test_a_lost_replica_takes_only_its_silos_back(self, loser: str, new_job: NewJob) -> None:
        job = three_silos(new_job, **self.SHAPE, silo_blocks="local")
        expected, everything = job.run(), job.everything()
        place = "worker/replica-1" if loser == "trunk-1" else f"silos/{loser}"
        shutil.rmtree(job.work_dir / place / "checkpoints" / "round-00000003")

        heard = Heard(StepDone)
        result = job.run(resume=True, on_progress=heard)

        assert {(step.silo, step.round) for step in heard.reports} == {("c", 3)}
        assert self.told(result) == self.told(expected)
        assert_same(job.everything(), everything)

    def test_blocks_that_were_averaged_go_back_together(self, new_job: NewJob) -> None:
        """The others' hold a sum that the lost replica's silos have not taken part in yet."""
        job = three_silos(new_job, **self.SHAPE, silo_blocks="averaged")
        expected, everything = job.run(), job.everything()
        shutil.rmtree(job.work_dir / "silos" / "c" / "checkpoints" / "round-00000003")

        heard = Heard(StepDone)
        result = job.run(resume=True, on_progress=heard)

        assert {(step.silo, step.round) for step in heard.reports} == {("a", 3), ("b", 3), ("c", 3)}
        assert self.told(result) == self.told(expected)
        assert_same(job.everything(), everything)

    def test_without_a_replicas_checkpoints_begins_anew(self, new_job: NewJob) -> None:
        job = three_silos(new_job, **self.SHAPE)
        expected, everything = job.run(), job.everything()
        job.checkpoints("trunk-0").clear()
        assert self.told(job.run(resume=True)) == self.told(expected)
        assert_same(job.everything(), everything)
