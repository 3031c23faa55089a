"""Keep the best round, end early: decided at the trunk, the same after an interruption, and in the result."""

from typing import Any

import pytest
from safetensors.torch import load_file

from splitlearn.parties import Progress, RoundFinished, StepDone
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.results import SimulationResult
from tests.integration.conftest import LORA, Heard, Job, NewJob, assert_same, silo_rows
from tests.integration.test_results import load_plain, plain_loss

# So high a rate that the held-out loss soon grows: some seeds never get below that of the random weights, so
# these do not count here.
WATCHED: dict[str, Any] = {"every_rounds": 1, "keep_best": True, "patience_evaluations": 2, "batch_size": 5}
SHAPE: dict[str, Any] = {
    "rounds": 6,
    "steps_per_round": 3,
    "learning_rate": {"peak": 0.03},
    "evaluation": {**WATCHED, "before_training": False},
}
KINDS: dict[str, dict[str, Any]] = {
    "full-local": {},
    "lora-frozen": {"adapter": LORA, "silo_blocks": "frozen"},
    "serial": {"schedule": "serial"},
    "replicas": {"schedule": "hierarchical", "replicas": 2},
    "replicas-averaged": {"schedule": "hierarchical", "replicas": 2, "silo_blocks": "averaged"},
}


def best_of(result: SimulationResult) -> int:
    """The best round, by the silos' own numbers."""
    overall = {}
    for number in range(1, result.last_round + 1):
        found = [each for silo in result.silos for each in silo.evaluations if each.round == number]
        overall[number] = sum(each.loss * each.num_tokens for each in found) / sum(
            each.num_tokens for each in found
        )
    return min(overall, key=lambda number: overall[number])


def prepare(new_job: NewJob, kind: str, **fields: Any) -> Job:
    data = [silo_rows("a"), silo_rows("b", longest=6)]
    if KINDS[kind].get("silo_blocks") == "averaged":
        data.append(silo_rows("c", longest=5))  # a sum is of three at least
    return new_job("llama", *data, **{**SHAPE, **KINDS[kind], **fields})


class PowerCutError(Exception):
    """Nothing that the code knows of."""


@pytest.mark.parametrize("kind", KINDS)
class TestBestRound:
    def test_is_what_every_silo_gets_and_the_job_ends_early(self, kind: str, new_job: NewJob) -> None:
        job, heard = prepare(new_job, kind), Heard(RoundFinished)
        result = job.run(on_progress=heard)

        best = best_of(result)
        assert result.result_round == best
        assert result.last_round == min(best + 2, 6)
        if "replicas" not in kind:  # which are averaged, and then evaluated, once each has told that
            assert heard.reports[-1] == RoundFinished(result.last_round, best_round=best)
        assert result.to_json()["result_round"] == best
        for silo, data in zip(result.silos, job.data, strict=True):
            [told] = [found.loss for found in silo.evaluations if found.round == best]
            assert silo.eval_loss == told
            # Rows in batches of another size add up in another order: see test_results.
            found = plain_loss(load_plain(job.folder, silo), data, max_rows=256)
            assert found == pytest.approx(told, rel=1e-6)

    def test_is_the_same_after_an_interruption(self, kind: str, new_job: NewJob) -> None:
        whole, job = prepare(new_job, kind), prepare(new_job, kind)
        undisturbed = whole.run()
        last = undisturbed.last_round
        assert undisturbed.result_round in range(1, last), "nothing is kept here but the last round"

        for cut_in in (last, last + 1):

            def cut(progress: Progress, *, cut_in: int = cut_in) -> None:
                is_there = isinstance(progress, StepDone) and progress.round == cut_in
                if is_there or (isinstance(progress, RoundFinished) and progress.round == cut_in - 1 == last):
                    raise PowerCutError

            with pytest.raises(PowerCutError):
                job.run(resume=True, on_progress=cut)
        result = job.run(resume=True)

        assert (result.result_round, result.last_round) == (undisturbed.result_round, last)
        names = [silo.name for silo in job.spec.silos]
        results = [
            {f"{name}/{key}": value for name in names for key, value in result_of(each, name).items()}
            for each in (whole, job)
        ]
        assert_same(*results)


def result_of(job: Job, name: str) -> dict[str, Any]:
    """Every tensor of a silo's result."""
    folder = job.work_dir / "silos" / name / "result"
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


# With a rate at which every round is worse than what the job began with.
RUINOUS: dict[str, Any] = {
    **SHAPE,
    "optimizer": {"kind": "sgd"},
    "learning_rate": {"peak": 10.0},
    "max_grad_norm": None,
    "evaluation": WATCHED,
}


@pytest.mark.parametrize("kind", KINDS)
class TestBeforeTraining:
    def test_is_the_result_where_nothing_was_better(self, kind: str, new_job: NewJob) -> None:
        # What a sum of blocks adds up has to fit into 32 bits.
        fits = {"learning_rate": {"peak": 3.0}, "averaging": {"fraction_bits": 16}}
        job = prepare(new_job, kind, **{**RUINOUS, **(fits if "averaged" in kind else {})})
        cut_once: list[Progress] = []

        def cut(progress: Progress) -> None:
            if isinstance(progress, RoundFinished) and not cut_once:
                cut_once.append(progress)
                raise PowerCutError

        with pytest.raises(PowerCutError):
            job.run(on_progress=cut)
        result = job.run(resume=True)

        assert (result.result_round, result.last_round) == (0, 2)
        assert result.eval_loss == result.eval_loss_before
        reference = train_centralised(job.spec, job.folder, job.data)
        assert len(reference.losses) == 2 * 3
        for silo, data, (_, begun) in zip(result.silos, job.data, reference.before, strict=True):
            assert silo.before is not None
            assert silo.before.loss == pytest.approx(begun.loss.mean, rel=1e-6)  # batches add up otherwise
            found = plain_loss(load_plain(job.folder, silo), data, max_rows=256)
            assert found == pytest.approx(begun.loss.mean, rel=1e-6)

    def test_is_left_out_where_asked(self, kind: str, new_job: NewJob) -> None:
        job = prepare(new_job, kind, rounds=1, evaluation={"before_training": False})
        result = job.run()
        told = [found.round for silo in result.silos for found in silo.evaluations]
        assert told == [1] * len(job.data)
        assert result.eval_loss_before is None


class TestOneSilo:
    def test_equals_the_uncut_model_bit_for_bit(self, new_job: NewJob) -> None:
        job = new_job("llama", silo_rows("clinic"), **SHAPE)
        result = job.run()
        reference = train_centralised(job.spec, job.folder, job.data)
        assert len(reference.losses) == result.last_round * 3 < 18
        assert result.eval_loss == reference.eval_loss
