"""What the demo came to: the federation, the reference beside it, and how it ended."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from splitlearn.errors import TrunklineError
from splitlearn.simulation.centralised_files import CentralisedAnswer, SiloAnswer
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.results import SimulationResult, Status, number, scores_json


@dataclass(frozen=True)
class Fault:
    """Why a run did not complete: a stable word, a sentence, the command's exit code.

    Attributes:
        code: As in :mod:`splitlearn.errors`; ``cancelled`` by a signal, ``bug`` for what nobody expected.
        message: For people.
        exit_code: What the command ends with.
        cause: The bug itself, for ``--verbose``.
    """

    code: str
    message: str
    exit_code: int
    cause: BaseException | None = None

    @classmethod
    def of(cls, error: TrunklineError) -> "Fault":
        """Take over an error's facts."""
        return cls(error.code, error.message, error.exit_code)


class Kept(Protocol):
    """A platform that was left running."""

    @property
    def address(self) -> str:
        """Where it is, and who may sign in."""

    def close(self) -> None:
        """Stop it."""


@dataclass(frozen=True)
class DemoOutcome:
    """How a demo ended.

    Attributes:
        status: ``completed``, ``failed`` or ``cancelled``.
        options: What was asked for.
        federation: What the federation came to, or had come to; None if it never began.
        reference: What the centralised reference came to; None if it was not run, or not to its end.
        fault: Why it did not complete; None if it did.
        last_round: Last round that ``--resume`` would go on from.
        is_resumable: Whether ``--resume`` has anything to go on with.
        kept: The platform, where it was left running.
    """

    status: Status
    options: DemoOptions
    federation: SimulationResult | None = None
    reference: CentralisedAnswer | None = None
    fault: Fault | None = None
    last_round: int = 0
    is_resumable: bool = False
    kept: Kept | None = None

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return self.fault.exit_code if self.fault else 0

    @property
    def out_dir(self) -> Path:
        """The run's folder."""
        return self.options.out_dir

    def reference_of(self, silo: str) -> SiloAnswer | None:
        """Return the reference's evaluation on one silo's rows."""
        answers = self.reference.silos if self.reference else ()
        return next((answer for answer in answers if answer.name == silo), None)

    def _scores_of(self, answer: SiloAnswer | None) -> dict[str, Any]:
        if answer is None or self.federation is None:
            return {}
        scores = {score.name: score.value for score in answer.scores}
        return scores_json(scores, self.federation.spec.task)

    @property
    def relative_difference(self) -> float | None:
        """|federated - centralised| / centralised, of the evaluation losses."""
        if self.federation is None or self.reference is None or not self.reference.eval_loss:
            return None
        difference = abs(self.federation.eval_loss - self.reference.eval_loss) / self.reference.eval_loss
        return difference if math.isfinite(difference) else None

    @property
    def reference_accuracy(self) -> float | None:
        """Share of all held-out rows that the reference answers rightly; None outside ``choice``."""
        if self.federation is None:
            return None
        rated = [
            (answer.accuracy, self.federation.num_evaluated(silo))
            for silo in self.federation.silos
            if (answer := self.reference_of(silo.name)) and answer.accuracy is not None
        ]
        total = sum(weight for _, weight in rated)
        return math.fsum(accuracy * weight for accuracy, weight in rated) / total if total else None

    def to_json(self) -> dict[str, Any]:
        """Return what scripts read; a number that is not known is null."""
        content = _empty(self.options) if self.federation is None else self.federation.to_json()
        reference = self.reference
        for silo in content["silos"]:
            answer = self.reference_of(silo["name"])
            silo["centralised_eval_loss"] = number(answer.eval_loss) if answer else None
            silo["centralised_accuracy"] = number(answer.accuracy) if answer else None
            silo["centralised_scores"] = self._scores_of(answer)
        return {
            **content,
            "status": self.status,
            "centralised_eval_loss": number(reference.eval_loss) if reference else None,
            "centralised_accuracy": number(self.reference_accuracy),
            "centralised_seconds_per_step": number(reference.seconds_per_step) if reference else None,
            "relative_difference": number(self.relative_difference),
            "out": str(self.out_dir),
            "last_round": self.last_round,
            "error": {"code": self.fault.code, "message": self.fault.message} if self.fault else None,
        }


def _empty(options: DemoOptions) -> dict[str, Any]:
    """Return the keys of a federation that never began."""
    return {
        "status": "failed",
        "schedule": options.schedule,
        "replicas": options.replicas,
        "codec": options.codec,
        "silo_blocks": options.silo_blocks,
        "adapter": options.adapter,
        "task": options.task_kind,
        "model": options.model,
        "seed": options.seed,
        "rounds": options.rounds,
        "result_round": None,
        "steps_per_round": options.steps_per_round,
        "threads": options.threads,
        "silos": [],
        "eval_loss": None,
        "eval_loss_before": None,
        "accuracy": None,
        "accuracy_before": None,
        "scores": {},
        "num_steps": 0,
        "seconds_per_step": None,
        "wire_bytes_per_token": None,
        "eval_wire_bytes": 0,
        "peak_memory_bytes": {},
        "job_id": None,
        "artifacts": {},
    }
