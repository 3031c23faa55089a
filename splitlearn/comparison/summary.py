"""What the runs say together: means over seeds, and differences between runs of the same seed. Pure.

All differences are *paired*: each seed's run of a mode is set against the centralised run, or the silos
alone, of the same seed, and only then is the mean taken. So what all runs of a seed have in common falls out.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from splitlearn.comparison.intervals import Interval, mean_interval
from splitlearn.comparison.modes import CENTRALISED, Mode
from splitlearn.comparison.run_files import RunResult


@dataclass(frozen=True)
class Before:
    """What every mode begins with, evaluated over the seeds: held-out rows follow from them."""

    seeds: tuple[int, ...]
    eval_loss: Interval
    metric: Interval
    scores: Mapping[str, Interval]


@dataclass(frozen=True)
class ModeSummary:
    """One mode over its seeds.

    Attributes:
        mode: The mode.
        seeds: Of its finished runs.
        eval_loss: Mean loss per held-out label token of all silos.
        metric: The task's metric, where it is another than the loss; else the loss.
        difference: (its loss - the centralised loss) / the centralised loss, of runs of the same seed; None
            for the centralised mode itself, or without one.
        metric_difference: Its metric minus the centralised one.
        better_than_alone: In how many seeds its loss is below the mean loss of the silos alone.
        compared_with_alone: In how many seeds all silos' runs alone are there; 0 for ``alone``.
        seconds: Training time.
        bytes: Sealed bytes of training.
        memory_bytes: Largest resident memory.
        silo_losses: Loss on each silo's own held-out rows.
        silo_metrics: The metric on each silo's own held-out rows.
        scores: The task's other scores, by name, of which every run has one.
        curve: (share of the run, mean training loss over the seeds).
    """

    mode: Mode
    seeds: tuple[int, ...]
    eval_loss: Interval
    metric: Interval
    difference: Interval | None
    metric_difference: Interval | None
    better_than_alone: int
    compared_with_alone: int
    seconds: Interval
    bytes: Interval
    memory_bytes: Interval
    silo_losses: Mapping[str, Interval]
    silo_metrics: Mapping[str, Interval]
    scores: Mapping[str, Interval]
    curve: tuple[tuple[float, float], ...]


def summarise(modes: Sequence[Mode], results: Sequence[RunResult]) -> tuple[ModeSummary, ...]:
    """Sum up every mode that has a finished run, in the order of the modes."""
    by_mode = {
        mode.name: {found.seed: found for found in results if found.mode == mode.name} for mode in modes
    }
    alone = _mean_alone(modes, by_mode)
    return tuple(
        _of_mode(mode, by_mode[mode.name], by_mode.get(CENTRALISED, {}), alone)
        for mode in modes
        if by_mode[mode.name]
    )


def mean_alone(modes: Sequence[Mode], results: Sequence[RunResult]) -> Interval | None:
    """Return the mean over the silos of their losses alone, over the seeds that have them all."""
    by_mode = {
        mode.name: {found.seed: found for found in results if found.mode == mode.name} for mode in modes
    }
    return mean_interval(list(_mean_alone(modes, by_mode).values()))


def before_training(results: Sequence[RunResult]) -> Before | None:
    """Sum up what the runs began with, once per seed; None where no run evaluated it."""
    found = {run.seed: run.before for run in reversed(results) if run.before is not None}
    if not found:
        return None
    evaluations = list(found.values())
    return Before(
        seeds=tuple(sorted(found)),
        eval_loss=_interval(each.eval_loss for each in evaluations),
        metric=_interval(each.metric for each in evaluations),
        scores=_mean_scores([each.scores for each in evaluations]),
    )


def _mean_alone(modes: Sequence[Mode], by_mode: Mapping[str, Mapping[int, RunResult]]) -> dict[int, float]:
    of_silo = {mode.silo: by_mode[mode.name] for mode in modes if mode.kind == "alone"}
    roster = {silo.name for runs in by_mode.values() for run in runs.values() for silo in run.silos}
    if not of_silo or of_silo.keys() < roster:  # the mean of some is not the mean silo's
        return {}
    alone = list(of_silo.values())
    seeds = set.intersection(*(set(runs) for runs in alone))
    return {seed: statistics.fmean(runs[seed].eval_loss for runs in alone) for seed in sorted(seeds)}


def _of_mode(
    mode: Mode,
    runs: Mapping[int, RunResult],
    centralised: Mapping[int, RunResult],
    alone: Mapping[int, float],
) -> ModeSummary:
    listed = list(runs.values())
    pairs = [] if mode.name == CENTRALISED else [(runs[s], centralised[s]) for s in runs if s in centralised]
    with_alone = [] if mode.kind == "alone" else [seed for seed in runs if seed in alone]
    silos = [silo.name for silo in listed[0].silos]

    def over(value: Callable[[RunResult], float]) -> Interval:
        return _interval(value(run) for run in listed)

    return ModeSummary(
        mode=mode,
        seeds=tuple(runs),
        eval_loss=over(lambda run: run.eval_loss),
        metric=over(lambda run: run.metric),
        difference=mean_interval([(run.eval_loss - ref.eval_loss) / ref.eval_loss for run, ref in pairs]),
        metric_difference=mean_interval([run.metric - reference.metric for run, reference in pairs]),
        better_than_alone=sum(runs[seed].eval_loss < alone[seed] for seed in with_alone),
        compared_with_alone=len(with_alone),
        seconds=over(lambda run: run.seconds),
        bytes=over(lambda run: run.bytes),
        memory_bytes=over(lambda run: run.memory_bytes),
        silo_losses={name: _interval(run.silo(name).eval_loss for run in listed) for name in silos},
        silo_metrics={name: _interval(_silo_metric(run, name) for run in listed) for name in silos},
        scores=_mean_scores([run.scores for run in listed]),
        curve=_mean_curve(listed),
    )


def _mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {
        name: _interval(found[name] for found in scores)
        for name in scores[0]
        if all(name in found for found in scores)
    }


def _silo_metric(run: RunResult, name: str) -> float:
    silo = run.silo(name)
    return silo.eval_loss if silo.accuracy is None else silo.accuracy


def _mean_curve(runs: Sequence[RunResult]) -> tuple[tuple[float, float], ...]:
    points: dict[float, list[float]] = {}
    for run in runs:
        for point in run.curve:
            points.setdefault(point.at, []).append(point.loss)
    return tuple((at, statistics.fmean(losses)) for at, losses in sorted(points.items()))


def _interval(values: Iterable[float]) -> Interval:
    found = mean_interval(list(values))
    assert found is not None, "a mode without a run is not summed up"
    return found
