"""What a simulated federation came to, as dataclasses and as JSON."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from splitlearn.parties import Evaluated, StepDone
from splitlearn.spec import ChoiceTask, JobSpec, TaskSpec
from splitlearn.tasks import DataReport, Score

_OF_AN_ANSWER = re.compile(r"(precision|recall|f1)_([0-9]+)")
Status = Literal["completed", "failed", "cancelled"]


@dataclass(frozen=True)
class SiloResult:
    """One silo's part.

    Attributes:
        name: The silo.
        report: What became of its rows.
        steps: Its training steps, in order.
        evaluations: Its evaluations, in order; the last is the job's.
        wire_bytes: Sealed bytes of its training turns, both directions.
        eval_wire_bytes: Sealed bytes of its evaluations, both directions.
        resent_messages: Messages sent again after a lost connection.
        artifact: Folder of its result: a PEFT adapter, or a whole model.
        result_round: The round that the result is of; None while nothing is decided: the last one.
    """

    name: str
    report: DataReport
    steps: tuple[StepDone, ...] = field(repr=False)
    evaluations: tuple[Evaluated, ...] = field(repr=False)
    wire_bytes: int
    eval_wire_bytes: int
    resent_messages: int
    artifact: Path | None
    result_round: int | None = None

    @property
    def final(self) -> Evaluated | None:
        """The evaluation of the round that the result is of, or the last one there is."""
        of_result = [found for found in self.evaluations if found.round == self.result_round]
        return next(iter((*of_result[-1:], *self.evaluations[-1:])), None)

    @property
    def before(self) -> Evaluated | None:
        """The evaluation before step 1; None where the job does not ask for it, or the silo withholds it."""
        found = (each for each in self.evaluations if each.round == 0 and not each.withheld_below)
        return next(found, None)

    @property
    def loss_first(self) -> float:
        """Token-weighted mean loss over the first tenth of the silo's steps, at least one."""
        return mean_loss(self.steps[: tenth(len(self.steps))])

    @property
    def loss_last(self) -> float:
        """Token-weighted mean loss over the last tenth of the silo's steps, at least one."""
        return mean_loss(self.steps[-tenth(len(self.steps)) :])

    @property
    def eval_loss(self) -> float:
        """Mean loss over the silo's held-out label tokens with its result."""
        return self.final.loss if self.final else math.nan

    @property
    def accuracy(self) -> float | None:
        """Share of held-out rows answered rightly; None outside ``choice``."""
        return self.final.accuracy if self.final else None

    @property
    def scores(self) -> tuple[Score, ...]:
        """What else there is to say of a choice, with its result."""
        return self.final.scores if self.final else ()

    @property
    def withheld_below(self) -> int:
        """Fewer held-out rows than this silo tells of; 0 where it tells."""
        return self.final.withheld_below if self.final else 0

    @property
    def num_valid_tokens(self) -> int:
        """Non-pad tokens that were trained on."""
        return sum(step.num_valid_tokens for step in self.steps)


@dataclass(frozen=True)
class SimulationResult:
    """A whole job.

    Attributes:
        status: How it ended.
        spec: The job.
        threads: Threads of torch, per party.
        silos: Every silo, in the roster's order.
        seconds_per_step: Median over the training turns of a turn's wall time per trunk step, with
            every party's computation, sealing and waiting in it.
        num_steps: Optimiser steps that this run took of the trunk, or of all its replicas.
        peak_memory_bytes: Largest resident memory by role: of any one ``agent``, of the ``worker`` and so on;
            ``all``, where all parties are one process.
        job_id: The job's id at the control plane; None without one.
        last_round: The last round that was trained.
    """

    status: Status
    spec: JobSpec
    threads: int
    silos: tuple[SiloResult, ...]
    seconds_per_step: float
    num_steps: int
    peak_memory_bytes: Mapping[str, int]
    job_id: str | None = None
    last_round: int = 0

    @property
    def eval_loss(self) -> float:
        """Token-weighted mean over the silos' held-out rows, each silo with its own blocks."""
        return weighted_mean(
            (silo.final.loss, silo.final.num_tokens)
            for silo in self.silos
            if silo.final and not silo.withheld_below
        )

    @property
    def eval_loss_before(self) -> float | None:
        """The same of what the job began with; None where no silo tells it."""
        told = [(silo.before.loss, silo.before.num_tokens) for silo in self.silos if silo.before]
        return weighted_mean(told) if told else None

    @property
    def accuracy_before(self) -> float | None:
        """Share of held-out rows answered rightly before step 1; None where no silo tells it."""
        told = [
            (silo.before.accuracy, silo.before.num_rows)
            for silo in self.silos
            if silo.before and silo.before.accuracy is not None
        ]
        return weighted_mean(told) if told else None

    @property
    def accuracy(self) -> float | None:
        """Share of all silos' held-out rows answered rightly; None outside ``choice``."""
        rated = [
            (silo.accuracy, self.num_evaluated(silo)) for silo in self.silos if silo.accuracy is not None
        ]
        return weighted_mean(rated) if rated else None

    @property
    def scores(self) -> dict[str, float]:
        """The silos' scores of a choice, as means weighted by their rows; not those of the pooled rows."""
        told = [
            (score.name, score.value, self.num_evaluated(silo))
            for silo in self.silos
            for score in silo.scores
        ]
        return {
            name: weighted_mean((value, rows) for other, value, rows in told if other == name)
            for name in dict.fromkeys(name for name, _, _ in told)
        }

    @property
    def result_round(self) -> int | None:
        """The round that the result is of."""
        return next((silo.result_round for silo in self.silos), None)

    def num_evaluated(self, silo: SiloResult) -> int:
        """Return how many of a silo's held-out rows are evaluated."""
        return min(silo.report.heldout, self.spec.evaluation.max_rows)

    @property
    def wire_bytes_per_token(self) -> float:
        """Sealed training bytes, both directions, over valid training tokens."""
        num_tokens = sum(silo.num_valid_tokens for silo in self.silos)
        return sum(silo.wire_bytes for silo in self.silos) / num_tokens if num_tokens else math.nan

    @property
    def eval_wire_bytes(self) -> int:
        """Sealed bytes of all evaluations, both directions."""
        return sum(silo.eval_wire_bytes for silo in self.silos)

    def to_json(self) -> dict[str, Any]:
        """Return what scripts read. Losses are in nats per token; a missing number is null."""
        return {
            "status": self.status,
            "schedule": self.spec.schedule,
            "replicas": self.spec.replicas,
            "codec": self.spec.codec,
            "silo_blocks": self.spec.silo_blocks,
            "adapter": self.spec.adapter.kind,
            "task": self.spec.task.kind,
            "model": self.spec.model,
            "seed": self.spec.seed,
            "rounds": self.spec.rounds,
            "last_round": self.last_round,
            "result_round": self.result_round,
            "steps_per_round": self.spec.steps_per_round,
            "threads": self.threads,
            "silos": [_silo_json(silo, self.spec.task) for silo in self.silos],
            "eval_loss": number(self.eval_loss),
            "eval_loss_before": number(self.eval_loss_before),
            "accuracy": number(self.accuracy),
            "accuracy_before": number(self.accuracy_before),
            "scores": scores_json(self.scores, self.spec.task),
            "num_steps": self.num_steps,
            "seconds_per_step": number(self.seconds_per_step),
            "wire_bytes_per_token": number(self.wire_bytes_per_token),
            "eval_wire_bytes": self.eval_wire_bytes,
            "peak_memory_bytes": dict(self.peak_memory_bytes),
            "job_id": self.job_id,
            "artifacts": {silo.name: str(silo.artifact.absolute()) for silo in self.silos if silo.artifact},
        }


def _silo_json(silo: SiloResult, task: TaskSpec) -> dict[str, Any]:
    report, below = silo.report, silo.withheld_below
    return {
        "name": silo.name,
        "rows": report.rows,
        "rows_truncated": report.truncated,
        "prompts_cut": report.prompts_cut,
        "answers_cut": report.answers_cut,
        "rows_dropped": report.dropped,
        "tokens_cut_left": report.tokens_cut_left,
        "tokens_cut_right": report.tokens_cut_right,
        "steps": len(silo.steps),
        "loss_first": number(silo.loss_first),
        "loss_last": number(silo.loss_last),
        "eval_loss": number(silo.eval_loss),
        "eval_loss_before": number(silo.before.loss if silo.before else None),
        "accuracy": number(silo.accuracy),
        "scores": scores_json({score.name: score.value for score in silo.scores}, task),
        "withheld": f"fewer than {below} rows" if below else None,
        "resent_messages": silo.resent_messages,
    }


def scores_json(scores: Mapping[str, float], task: TaskSpec) -> dict[str, Any]:
    """Return scores by name, those of each answer under its key: ``{"f1": .., "answers": {"yes": {..}}}``."""
    keys = list(task.answers) if isinstance(task, ChoiceTask) else []
    content: dict[str, Any] = {}
    answers: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        found = _OF_AN_ANSWER.fullmatch(name)
        if found is None:
            content[name] = value
        elif int(found[2]) < len(keys):
            answers.setdefault(keys[int(found[2])], {})[found[1]] = value
    return {**content, **({"answers": answers} if answers else {})}


def number(value: float | None) -> float | None:
    """Return a number that JSON can hold: null for none and for what is not finite."""
    return value if value is not None and math.isfinite(value) else None


def tenth(count: int) -> int:
    """Return a tenth of ``count``, at least one."""
    return max(1, count // 10)


def mean_loss(steps: Sequence[StepDone]) -> float:
    """Return the token-weighted mean loss of some steps; NaN where there was no label token."""
    return weighted_mean((step.loss, step.num_label_tokens) for step in steps if step.num_label_tokens)


def weighted_mean(pairs: Iterable[tuple[float, int]]) -> float:
    """Return the mean of values by weights; NaN where the weights are all 0."""
    listed = list(pairs)
    total = sum(weight for _, weight in listed)
    return math.fsum(value * weight for value, weight in listed) / total if total else math.nan
