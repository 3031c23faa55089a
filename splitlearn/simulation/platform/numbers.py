"""What a job's metrics say, as the reports that the parties made of it. Pure."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from splitlearn.parties import Evaluated, OnProgress, RoundFinished, StepDone
from splitlearn.simulation.record import WireBytes
from splitlearn.tasks import Score

_SILO, _WORKER = "silo:", "worker:"
_OF_A_ROUND = -1
_STEP_IS_WHOLE = frozenset({"label_tokens", "valid_tokens", "seconds", "applied"})
_WITHHELD = "eval_withheld_below"
_SCORE = re.compile(r"f1|f1_macro|exact_match|token_f1|(precision|recall|f1)_[0-9]+|rouge_[12l]|bleu_4")
_EVALUATION_IS_WHOLE = frozenset({"eval_loss", "eval_tokens"})


@dataclass(frozen=True, slots=True)
class Point:
    """One metric as the API shows it: a number of one party at a step, or (step -1) of a round."""

    party: str
    name: str
    round: int
    step: int
    value: float


@dataclass
class JobNumbers:
    """Collects a job's metrics, in any order, each as often as it is sent.

    Attributes:
        is_choice: Whether an evaluation has an accuracy too.
        forward: Told of every step, evaluation and round once, when it is whole.
        resumed_from: Last round that an earlier, interrupted run has finished, 0 for none; up to there
            numbers are taken in, but not told again.
    """

    is_choice: bool
    forward: OnProgress
    resumed_from: int = 0
    _points: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)
    _told: set[tuple[str, int, int]] = field(default_factory=set)

    def take(self, points: Iterable[Point]) -> None:
        """Take in some points."""
        touched: dict[tuple[str, int, int], None] = {}
        for point in points:
            key = (point.party, point.round, point.step)
            self._points.setdefault(key, {})[point.name] = point.value
            touched[key] = None
        for key in touched:
            self._tell(key)

    def steps(self, silo: str) -> tuple[StepDone, ...]:
        """Return a silo's steps in order; one that was taken again after a crash counts once."""
        party = _SILO + silo
        found = {
            step: _step(silo, round_number, step, values)
            for (of, round_number, step), values in sorted(self._points.items())
            if of == party and step != _OF_A_ROUND and values.keys() >= _STEP_IS_WHOLE
        }
        return tuple(found[step] for step in sorted(found))

    def evaluations(self, silo: str) -> tuple[Evaluated, ...]:
        """Return a silo's evaluations in order."""
        party = _SILO + silo
        return tuple(
            _evaluation(silo, round_number, values)
            for (of, round_number, step), values in sorted(self._points.items())
            if of == party and step == _OF_A_ROUND and self._is_evaluation(values)
        )

    def wire_bytes(self, silo: str) -> WireBytes:
        """Return the sealed bytes of a silo since the job's begin."""
        return WireBytes(
            training=int(self._last(_SILO + silo, "wire_bytes")),
            evaluation=int(self._last(_SILO + silo, "eval_wire_bytes")),
        )

    def resent_messages(self, silo: str) -> int:
        """Return how many messages were sent again after a lost connection."""
        return int(self._last(_SILO + silo, "resent_messages"))

    def seconds_per_step(self) -> list[float]:
        """Return the worker's seconds per trunk step, round by round."""
        return self._all(_WORKER, "seconds_per_step")

    def num_steps(self) -> int:
        """Return how many steps the trunk has taken in whole rounds."""
        return int(sum(self._all(_WORKER, "turn_steps")))

    def peak_memory_bytes(self, kind: str) -> int | None:
        """Return the largest resident memory of any ``silo`` or ``worker``; None before the first word."""
        values = self._all(f"{kind}:", "peak_memory_bytes")
        return int(max(values)) if values else None

    def best_round(self) -> int | None:
        """Return the best evaluated round, as the worker told last; None where the job asks for none."""
        told = {
            round_number: int(values["best_round"])
            for (party, round_number, _), values in self._points.items()
            if party.startswith(_WORKER) and "best_round" in values
        }
        return told[max(told)] if told else None

    @property
    def last_round(self) -> int:
        """The last round that the trunk has finished."""
        rounds = [
            key[1] for key, values in self._points.items() if key[0].startswith(_WORKER) and _is_round(values)
        ]
        return max(rounds, default=0)

    def _all(self, prefix: str, name: str) -> list[float]:
        return [
            values[name]
            for (party, _, _), values in sorted(self._points.items())
            if party.startswith(prefix) and name in values
        ]

    def _last(self, party: str, name: str) -> float:
        values = self._all(party, name)
        return values[-1] if values else 0.0

    def _is_evaluation(self, values: dict[str, float]) -> bool:
        is_whole = values.keys() >= _EVALUATION_IS_WHOLE and (not self.is_choice or "accuracy" in values)
        return is_whole or _WITHHELD in values

    def _tell(self, key: tuple[str, int, int]) -> None:
        party, round_number, step = key
        values = self._points[key]
        is_of_earlier_run = round_number <= self.resumed_from > 0
        if is_of_earlier_run or key in self._told:
            return
        kind, _, name = party.partition(":")
        if kind == "worker" and step == _OF_A_ROUND and _is_round(values):
            self._told.add(key)
            self.forward(RoundFinished(round_number, _replica_of(name)))
        elif kind == "silo" and step != _OF_A_ROUND and values.keys() >= _STEP_IS_WHOLE:
            self._told.add(key)
            self.forward(_step(name, round_number, step, values))
        elif kind == "silo" and step == _OF_A_ROUND and self._is_evaluation(values):
            self._told.add(key)
            self.forward(_evaluation(name, round_number, values))


def _replica_of(worker: str) -> int | None:
    """Return which trunk a worker's number is of; None where the job has one: ``gpu-1/r2`` or ``gpu-1``."""
    _, _, replica = worker.partition("/r")
    return int(replica) if replica else None


def _is_round(values: dict[str, float]) -> bool:
    return "seconds_per_step" in values


def _step(silo: str, round_number: int, step: int, values: dict[str, float]) -> StepDone:
    return StepDone(
        silo=silo,
        round=round_number,
        step=step,
        loss=values.get("loss", math.nan),  # what is not a number is not sent
        num_label_tokens=int(values["label_tokens"]),
        num_valid_tokens=int(values["valid_tokens"]),
        applied=bool(values["applied"]),
        seconds=values["seconds"],
    )


def _evaluation(silo: str, round_number: int, values: dict[str, float]) -> Evaluated:
    num_rows = int(values.get("eval_rows", 1))
    if _WITHHELD in values:
        below = int(values[_WITHHELD])
        return Evaluated(silo, round_number, math.nan, 0, None, num_rows=num_rows, withheld_below=below)
    return Evaluated(
        silo=silo,
        round=round_number,
        loss=values["eval_loss"],
        num_tokens=int(values["eval_tokens"]),
        accuracy=values.get("accuracy"),
        scores=tuple(
            Score(name, value, num_rows) for name, value in sorted(values.items()) if _SCORE.fullmatch(name)
        ),
        num_rows=num_rows,
    )
