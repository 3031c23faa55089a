"""A comparison's report: what every rendering of it shows. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from splitlearn.comparison.intervals import Interval
from splitlearn.comparison.modes import LeftOut, Mode
from splitlearn.comparison.run_files import RunResult
from splitlearn.comparison.runner import Failure
from splitlearn.comparison.summary import Before, ModeSummary, before_training, mean_alone, summarise
from splitlearn.spec import JobSpec
from splitlearn.task_spec import TaskSpec

FORMAT = "trunkline/comparison/v1"


@dataclass(frozen=True)
class Report:
    """All that is told.

    Attributes:
        base: The job as every mode has it, with the first seed.
        modes: What was asked for.
        num_seeds: How many seeds were asked for.
        threads: Threads of torch, per party.
        parallel: Runs at a time.
        results: Of the finished runs, in the order of the plan.
        failures: Of the others.
        left_out: Usual modes that the job cannot have, where nobody chose.
    """

    base: JobSpec
    modes: tuple[Mode, ...]
    num_seeds: int
    threads: int
    parallel: int
    results: tuple[RunResult, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[LeftOut, ...] = ()

    @cached_property
    def summaries(self) -> tuple[ModeSummary, ...]:
        """Every mode that has a finished run."""
        return summarise(self.modes, self.results)

    @cached_property
    def alone(self) -> Interval | None:
        """Mean loss of the silos alone; None without their runs."""
        return mean_alone(self.modes, self.results)

    @cached_property
    def before(self) -> Before | None:
        """What every mode began with; None where no run evaluated it."""
        return before_training(self.results)

    @property
    def task(self) -> TaskSpec:
        """The task."""
        return self.base.task

    @property
    def has_metric(self) -> bool:
        """Whether there is a metric besides the loss."""
        return any(result.metric_name != "eval_loss" for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return what scripts read. Losses are in nats per token, sizes in bytes; the unknown is null."""
        return {
            "format": FORMAT,
            "name": self.base.name,
            "task": self.task.kind,
            "model": self.base.model,
            "spec": self.base.model_dump(mode="json"),
            "modes": [mode.name for mode in self.modes],
            "left_out": [asdict(left_out) for left_out in self.left_out],
            "seeds": [self.base.seed + number for number in range(self.num_seeds)],
            "threads": self.threads,
            "parallel": self.parallel,
            "runs": [_run_json(result) for result in self.results],
            "failures": [
                {
                    "mode": failure.run.mode.name,
                    "seed": failure.run.seed,
                    "code": failure.code,
                    "message": failure.message,
                }
                for failure in self.failures
            ],
            "summary": [_summary_json(summary) for summary in self.summaries],
            "before_training": None if self.before is None else asdict(self.before),
            "mean_silo_alone": None if self.alone is None else {"eval_loss": asdict(self.alone)},
        }


def _run_json(result: RunResult) -> dict[str, Any]:
    return result.model_dump(mode="json", exclude={"fingerprint"})


def _summary_json(summary: ModeSummary) -> dict[str, Any]:
    return {
        "mode": summary.mode.name,
        "seeds": list(summary.seeds),
        "eval_loss": asdict(summary.eval_loss),
        "metric": asdict(summary.metric),
        "scores": {name: asdict(found) for name, found in summary.scores.items()},
        "relative_difference_to_centralised": _optional(summary.difference),
        "metric_difference_to_centralised": _optional(summary.metric_difference),
        "seeds_better_than_mean_silo_alone": summary.better_than_alone,
        "seeds_compared_with_silos_alone": summary.compared_with_alone,
        "seconds": asdict(summary.seconds),
        "bytes": asdict(summary.bytes),
        "memory_bytes": asdict(summary.memory_bytes),
        "silos": _by_silo(summary, list(summary.silo_losses)),
    }


def _by_silo(summary: ModeSummary, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "eval_loss": asdict(summary.silo_losses[name]),
            "metric": asdict(summary.silo_metrics[name]),
        }
        for name in names
    ]


def _optional(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)
