"""How a job trains and is evaluated, by real processes: the same bits as in one process, option by option."""

from collections.abc import Iterator
from typing import Any

import pytest

from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.spec import EvaluationSpec, JobSpec, LearningRateSpec, SGDSpec, SummariseTask
from tests.integration.platform_jobs import PlatformJobs, platform_jobs

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=2,
    silo_blocks="local",
    precision="bf16",
    gradient_checkpointing=True,
    rounds=2,
    steps_per_round=4,
    batch_size=2,
    max_tokens=32,
    evaluation_rows=4,
    centralised=False,
)
METRICS = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformJobs]:
    with platform_jobs(OPTIONS, tmp_path_factory.mktemp("jobs")) as running:
        yield running


def plain(jobs: PlatformJobs, **fields: Any) -> JobSpec:
    """The platform's first job in fp32, with other fields."""
    return jobs.spec.model_copy(update={"precision": "fp32", "gradient_checkpointing": False, **fields})


@pytest.mark.long
def test_bf16_with_layers_computed_again(jobs: PlatformJobs) -> None:
    assert (jobs.spec.precision, jobs.spec.gradient_checkpointing) == ("bf16", True)
    jobs.assert_equal(jobs.first_job, jobs.in_process(jobs.spec, "bf16"))


def test_fp16_with_a_scale_of_the_loss(jobs: PlatformJobs) -> None:
    spec = plain(jobs, precision="fp16", seed=1)
    expected = jobs.in_process(spec, "fp16")
    assert expected.eval_loss < 7  # of 768 words: the scale lets something be learned
    jobs.assert_equal(jobs.run(spec), expected)


@pytest.mark.long
def test_the_best_round_of_a_job_that_ends_early(jobs: PlatformJobs) -> None:
    """With a rate at which every round is worse than the first."""
    spec = plain(
        jobs,
        rounds=6,
        steps_per_round=2,
        optimizer=SGDSpec(),
        max_grad_norm=None,
        learning_rate=LearningRateSpec(peak=2.0),
        evaluation=EvaluationSpec(every_rounds=1, max_rows=4, keep_best=True, patience_evaluations=2),
    )
    expected = jobs.in_process(spec, "best")
    evaluated = [each.round for each in expected.silos[0].evaluations]
    best = expected.silos[0].result_round
    assert best is not None
    assert evaluated == list(range(best + 3)), "it goes on for two more, then ends"
    assert evaluated[-1] < spec.rounds
    job_id = jobs.run(spec)
    jobs.assert_equal(job_id, expected)
    last = max(jobs.numbers(job_id, "best_round"), key=lambda each: each["round"])
    assert (last["round"], last["value"]) == (evaluated[-1], best)


def test_the_best_round_of_replicas_whose_silos_score_texts_together(jobs: PlatformJobs) -> None:
    spec = plain(
        jobs,
        schedule="hierarchical",
        replicas=2,
        rounds=6,
        steps_per_round=2,
        optimizer=SGDSpec(),
        max_grad_norm=None,
        learning_rate=LearningRateSpec(peak=2.0),
        task=SummariseTask(prompt="{note}\nTriage:", answer=" {triage}", metrics=METRICS),
        evaluation=EvaluationSpec(every_rounds=1, max_rows=4, keep_best=True, patience_evaluations=2),
    )
    expected = jobs.in_process(spec, "best-of-replicas")
    best = expected.silos[0].result_round
    assert best is not None
    assert expected.last_round == best + 2 < spec.rounds
    job_id = jobs.run(spec)
    jobs.assert_equal(job_id, expected)
    last = max(jobs.numbers(job_id, "best_round"), key=lambda each: each["round"])
    assert (last["round"], last["value"]) == (expected.last_round, best)
    for silo in expected.silos:
        assert [found.round for found in silo.evaluations] == list(range(best + 3))
        told = jobs.evaluated(job_id, "eval_wire_bytes", silo.name)
        # A word on the best round is said in a conversation that trains, or evaluates, as the case may be.
        assert told[max(told)] == pytest.approx(silo.eval_wire_bytes, rel=1e-3)
        for score in silo.evaluations[-1].scores:
            assert jobs.evaluated(job_id, score.name, silo.name)[expected.last_round] == score.value


def test_scores_of_generated_summaries(jobs: PlatformJobs) -> None:
    task = SummariseTask(prompt="{note}\nTriage:", answer=" {triage}", metrics=METRICS)
    # Long enough to write words of what is wanted.
    spec = plain(
        jobs, task=task, steps_per_round=24, learning_rate=LearningRateSpec(peak=3e-3), max_tokens=48
    )
    expected = jobs.in_process(spec, "summaries")
    job_id = jobs.run(spec)
    jobs.assert_equal(job_id, expected)
    for silo in expected.silos:
        scores = {score.name: score.value for score in silo.evaluations[-1].scores}
        assert set(scores) == {"rouge_1", "rouge_2", "rouge_l", "bleu_4"}
        assert scores["rouge_1"] > 0
        begun = {score.name: score.value for score in silo.evaluations[0].scores}
        told = {name: jobs.evaluated(job_id, name, silo.name) for name in scores}
        assert told == {name: {0: begun[name], spec.rounds: value} for name, value in scores.items()}


def test_bytes_of_all_evaluations_also_of_the_last_one_of_replicas(jobs: PlatformJobs) -> None:
    spec = plain(
        jobs, schedule="hierarchical", replicas=2, evaluation=EvaluationSpec(every_rounds=1, max_rows=4)
    )
    expected = jobs.in_process(spec, "replicas")
    job_id = jobs.run(spec)
    jobs.assert_equal(job_id, expected)
    for silo in expected.silos:
        assert [found.round for found in silo.evaluations] == [0, 1, 2]
        told = jobs.evaluated(job_id, "eval_wire_bytes", silo.name)
        assert told[spec.rounds] == silo.eval_wire_bytes
