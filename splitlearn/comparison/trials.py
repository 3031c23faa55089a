"""The two ways of a run: one whole model on pooled rows, or a federation over memory links."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitlearn.comparison.run_files import CurvePoint, Overall, SiloScore
from splitlearn.comparison.training_clock import TrainingClock
from splitlearn.errors import TrainingError
from splitlearn.parties import Evaluated, Progress, StepDone
from splitlearn.simulation.centralised import train_centralised
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.results import SiloResult, weighted_mean
from splitlearn.spec import JobSpec
from splitlearn.tasks import BatchPlan, EvaluationResult, Score, SiloData

MAX_CURVE_POINTS = 40

OnShare = Callable[[float], None]
"""Told which share of the training is done."""


@dataclass(frozen=True)
class Trial:
    """What one training came to; :class:`~splitlearn.comparison.run_files.RunResult` says what each is."""

    silos: tuple[SiloScore, ...]
    seconds: float
    wire_bytes: int
    evaluation_bytes: int
    optimizer_steps: int
    rows_trained: int
    label_tokens: int
    last_round: int
    result_round: int | None
    curve: tuple[CurvePoint, ...]
    before: tuple[SiloScore, ...] = ()

    def overall(self) -> Overall:
        """Return the evaluation over all silos' held-out rows."""
        return _overall(self.silos)

    def overall_before(self) -> Overall | None:
        """Return the same of before step 1; None where that was not evaluated."""
        return _overall(self.before) if self.before else None


def _overall(silos: Sequence[SiloScore]) -> Overall:
    """Sum up: the loss over all label tokens, the accuracy over all rows, other scores weighted by rows."""
    loss = weighted_mean((silo.eval_loss, silo.num_tokens) for silo in silos)
    rated = [(silo.accuracy, silo.evaluated) for silo in silos if silo.accuracy is not None]
    names = dict.fromkeys(name for silo in silos for name in silo.scores)
    return Overall(
        metric_name="accuracy" if rated else "eval_loss",
        metric=weighted_mean(rated) if rated else loss,
        eval_loss=loss,
        scores={
            name: weighted_mean((silo.scores[name], silo.evaluated) for silo in silos if name in silo.scores)
            for name in names
        },
    )


@dataclass(frozen=True, slots=True)
class _Step:
    at: float
    loss: float
    num_label_tokens: int


def try_whole(job: JobSpec, model_folder: Path, data: Sequence[SiloData], *, on_share: OnShare) -> Trial:
    """Train one uncut model on the rows of the job's roster; evaluate it on those that every silo holds out.

    Args:
        job: Its roster may be of fewer silos than there is data of.
        model_folder: The model.
        data: Of every silo.
        on_share: Told how far it is.
    """
    num_steps = job.rounds * job.steps_per_round
    trained = {silo.name: silo for silo in data}
    own = [trained[silo.name] for silo in job.silos]
    result = train_centralised(
        job, model_folder, own, evaluated=data, on_step=lambda report: on_share((report.step + 1) / num_steps)
    )
    tokens = _tokens_per_step(job, own)[: len(result.steps)]
    steps = [
        _Step((report.step + 1) / num_steps, report.loss, tokens[report.step]) for report in result.steps
    ]
    return Trial(
        silos=_scores(job, data, result.evaluations),
        before=_scores(job, data, result.before) if result.before else (),
        seconds=math.fsum(report.seconds for report in result.steps),
        wire_bytes=0,
        evaluation_bytes=0,
        optimizer_steps=len(result.steps),
        rows_trained=len(result.steps) * job.accumulation_steps * job.batch_size * len(own),
        label_tokens=sum(tokens),
        last_round=len(result.steps) // job.steps_per_round,
        result_round=result.result_round,
        curve=curve_of(steps),
    )


def try_federated(
    job: JobSpec, model_folder: Path, data: Sequence[SiloData], work_dir: Path, *, on_share: OnShare
) -> Trial:
    """Train the cut model with all its parties in this process; see :func:`try_whole`."""
    expected = job.rounds * job.steps_per_round * len(job.silos)
    clock, done = TrainingClock(), 0

    def count(progress: Progress) -> None:
        nonlocal done
        clock.note(progress)
        if isinstance(progress, StepDone):
            done += 1
            on_share(min(done / expected, 1.0))

    result = simulate(job, model_folder=model_folder, data=data, work_dir=work_dir, on_progress=count)
    steps = [
        _Step((step.step + 1) / job.total_steps, step.loss, step.num_label_tokens)
        for silo in result.silos
        for step in silo.steps
    ]
    silos = tuple(
        _score(
            rows,
            job,
            eval_loss=found.loss,
            num_tokens=found.num_tokens,
            evaluated=found.num_rows,
            accuracy=found.accuracy,
            scores=found.scores,
        )
        for rows, found in zip(data, (_final(silo) for silo in result.silos), strict=True)
    )
    return Trial(
        silos=silos,
        seconds=clock.seconds,
        wire_bytes=sum(silo.wire_bytes for silo in result.silos),
        evaluation_bytes=result.eval_wire_bytes,
        optimizer_steps=result.last_round * job.global_steps_per_round,
        rows_trained=sum(step.num_rows for silo in result.silos for step in silo.steps),
        label_tokens=sum(step.num_label_tokens for step in steps),
        last_round=result.last_round,
        result_round=result.result_round,
        curve=curve_of(steps),
    )


def _scores(
    job: JobSpec, data: Sequence[SiloData], evaluations: Sequence[tuple[str, EvaluationResult]]
) -> tuple[SiloScore, ...]:
    return tuple(
        _score(
            silo,
            job,
            eval_loss=found.loss.mean,
            num_tokens=found.loss.num_tokens,
            evaluated=found.num_examples,
            accuracy=found.accuracy,
            scores=found.scores,
        )
        for silo, (_, found) in zip(data, evaluations, strict=True)
    )


def _final(silo: SiloResult) -> Evaluated:
    assert silo.final is not None, "a job that came to its end was evaluated"
    return silo.final


def curve_of(steps: Iterable[_Step]) -> tuple[CurvePoint, ...]:
    """Return the token-weighted mean loss over equal stretches of a run; without label tokens, none."""
    stretches: dict[int, list[tuple[float, int]]] = {}
    listed = list(steps)
    count = min(MAX_CURVE_POINTS, len({step.at for step in listed}))
    for step in listed:
        stretch = min(math.ceil(round(step.at * count, 9)), count)
        if step.num_label_tokens and math.isfinite(step.loss):
            stretches.setdefault(stretch, []).append((step.loss, step.num_label_tokens))
    return tuple(
        CurvePoint(at=stretch / count, loss=weighted_mean(pairs))
        for stretch, pairs in sorted(stretches.items())
    )


def _tokens_per_step(job: JobSpec, data: Sequence[SiloData]) -> list[int]:
    plans = [
        BatchPlan(
            silo.training, batch_size=job.batch_size, seed=job.seed, silo_name=silo.name, pad_token_id=0
        )
        for silo in data
    ]
    micro = job.accumulation_steps
    return [
        sum(
            silo.training[row].num_label_tokens
            for silo, plan in zip(data, plans, strict=True)
            for index in range(step * micro, (step + 1) * micro)
            for row in plan.row_numbers(index)
        )
        for step in range(job.rounds * job.steps_per_round)
    ]


def _score(
    silo: SiloData,
    job: JobSpec,
    *,
    eval_loss: float,
    num_tokens: int,
    evaluated: int,
    accuracy: float | None,
    scores: Iterable[Score],
) -> SiloScore:
    report = silo.report
    _refuse_divergence(eval_loss, silo.name, job)
    return SiloScore(
        name=silo.name,
        rows=report.rows,
        training=report.training,
        heldout=report.heldout,
        truncated=report.truncated,
        dropped=report.dropped,
        evaluated=evaluated,
        eval_loss=eval_loss,
        num_tokens=num_tokens,
        accuracy=accuracy,
        scores={score.name: score.value for score in scores},
    )


def _refuse_divergence(eval_loss: float, silo: str, job: JobSpec) -> None:
    if not math.isfinite(eval_loss):
        raise TrainingError(
            f"training diverged: the evaluation loss on silo {silo!r} is {eval_loss} after {job.total_steps} "
            f"steps at learning_rate.peak {job.learning_rate.peak:g}; give a lower one"
        )
