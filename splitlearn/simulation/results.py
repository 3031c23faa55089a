"""What a simulated federation came to, as dataclasses and as JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from splitlearn.parties import Evaluated, StepDone
from splitlearn.spec import JobSpec
from splitlearn.tasks import DataReport

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
    """

    name: str
    report: DataReport
    steps: tuple[StepDone, ...] = field(repr=False)
    evaluations: tuple[Evaluated, ...] = field(repr=False)
    wire_bytes: int
    eval_wire_bytes: int
    resent_messages: int
    artifact: Path | None

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
        """Mean loss over the silo's held-out label tokens at the job's end, with its own blocks."""
        return self.evaluations[-1].loss if self.evaluations else math.nan

    @property
    def accuracy(self) -> float | None:
        """Share of held-out rows answered rightly; None outside ``choice``."""
        return self.evaluations[-1].accuracy if self.evaluations else None

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
        num_steps: Optimiser steps of the trunk that this run took.
        peak_memory_bytes: Largest resident memory by role: of any one ``agent``, of the ``worker`` and so on;
            ``all``, where all parties are one process.
        job_id: The job's id at the control plane; None without one.
    """

    status: Status
    spec: JobSpec
    threads: int
    silos: tuple[SiloResult, ...]
    seconds_per_step: float
    num_steps: int
    peak_memory_bytes: Mapping[str, int]
    job_id: str | None = None

    @property
    def eval_loss(self) -> float:
        """Token-weighted mean over the silos' held-out rows, each silo with its own blocks."""
        return weighted_mean(
            (silo.evaluations[-1].loss, silo.evaluations[-1].num_tokens)
            for silo in self.silos
            if silo.evaluations
        )

    @property
    def accuracy(self) -> float | None:
        """Share of all silos' held-out rows answered rightly; None outside ``choice``."""
        rated = [
            (silo.accuracy, self.num_evaluated(silo)) for silo in self.silos if silo.accuracy is not None
        ]
        return weighted_mean(rated) if rated else None

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
            "codec": self.spec.codec,
            "silo_blocks": self.spec.silo_blocks,
            "adapter": self.spec.adapter.kind,
            "task": self.spec.task.kind,
            "model": self.spec.model,
            "seed": self.spec.seed,
            "rounds": self.spec.rounds,
            "steps_per_round": self.spec.steps_per_round,
            "threads": self.threads,
            "silos": [_silo_json(silo) for silo in self.silos],
            "eval_loss": number(self.eval_loss),
            "accuracy": number(self.accuracy),
            "num_steps": self.num_steps,
            "seconds_per_step": number(self.seconds_per_step),
            "wire_bytes_per_token": number(self.wire_bytes_per_token),
            "eval_wire_bytes": self.eval_wire_bytes,
            "peak_memory_bytes": dict(self.peak_memory_bytes),
            "job_id": self.job_id,
            "artifacts": {silo.name: str(silo.artifact.absolute()) for silo in self.silos if silo.artifact},
        }


def _silo_json(silo: SiloResult) -> dict[str, Any]:
    return {
        "name": silo.name,
        "rows": silo.report.rows,
        "rows_truncated": silo.report.truncated,
        "steps": len(silo.steps),
        "loss_first": number(silo.loss_first),
        "loss_last": number(silo.loss_last),
        "eval_loss": number(silo.eval_loss),
        "accuracy": number(silo.accuracy),
        "resent_messages": silo.resent_messages,
    }


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
