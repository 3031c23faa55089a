"""What a job is going to take: seconds and bytes of a step and a round, from what is known of its parties."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.estimates import Batch, Training, wire_bytes_per_token
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.step_time import (
    NO_DELAY,
    OWN_CORES,
    Cores,
    Line,
    ReplicaStep,
    SiloCost,
    TrunkCost,
    busy_seconds,
    client_batching_step_seconds,
    hierarchical_step_seconds,
)
from splitlearn.planning.work import Speed, batch_work, trained_parameters, update_work
from splitlearn.spec import JobSpec

_SILO_ROLES = (Role.BOTTOM, Role.TOP)
_WORD_BYTES = 4
_SUM_PART_WORDS = 1 << 18
_SUM_BYTES_PER_MEMBER = 370
"""Of a secure sum, what each member learns of each other: its signed words (306) and its consent (64)."""
_SUM_BYTES_ONCE = 600
_SUM_ROUND_TRIPS = 4
_FRAME_BYTES = 100
"""Of a sealed message beside its tensor: envelope, seal, counters. Rows' lengths come on top."""
_ROW_BYTES = 4
_BATCH_FRAMES = 4


@dataclass(frozen=True, slots=True)
class SiloPlace:
    """What is known of a silo.

    Attributes:
        speed: How fast it computes.
        line: To the worker.
        row_tokens: Its rows' length, in the mean; None takes every row for ``max_tokens`` long.
    """

    speed: Speed
    line: Line = NO_DELAY
    row_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of whoever takes part in a job.

    Attributes:
        trunks: Speeds of the workers, that first which would be taken first; at least one. Each hosts one
            replica at a time.
        silos: Of the roster, by name.
        trunk_bytes_per_second: Of the worker's own line; None where it is no limit.
        cores: Who shares processors.
    """

    trunks: Sequence[Speed]
    silos: Mapping[str, SiloPlace]
    trunk_bytes_per_second: float | None = None
    cores: Cores = OWN_CORES


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a job is going to take.

    Attributes:
        step_seconds: Of one optimiser step: of one silo's batch where silos take turns, else of every silo's.
        round_seconds: Of a round: ``steps_per_round`` steps of every silo, the secure sums included;
            evaluation and checkpoints are not.
        step_bytes: Of one silo in one of its steps, in the mean over the silos, both directions, secure sums
            not included.
        max_step_bytes: Likewise, where every row is ``max_tokens`` long.
        sum_bytes: Of one silo in one secure sum of its blocks, both directions; 0 where there is none.
        sums_per_round: How many of these a round has.
        silo_seconds: What the slowest silo computes in a step of its own.
        trunk_seconds: What the trunk, or the busiest replica, computes in a step.
    """

    step_seconds: float
    round_seconds: float
    step_bytes: int
    max_step_bytes: int
    sum_bytes: int
    sums_per_round: int
    silo_seconds: float
    trunk_seconds: float


def predict(spec: JobSpec, folder: ModelFolder, cut: Cut, around: Surroundings) -> Prediction:
    """Predict what a job takes.

    Args:
        spec: The job, with a schedule other than ``auto``.
        folder: Its model.
        cut: Where it is cut.
        around: Whoever takes part, each silo of the roster by name.
    """
    costs = {name: _silo_cost(spec, folder, cut, place) for name, place in around.silos.items()}
    num_workers = min(len(around.trunks), len(spec.shares))
    replicas, trunks = [], []
    for number, share in enumerate(spec.shares):
        speed = around.trunks[number % num_workers]
        steps = []
        for names in [[name] for name in share] if spec.takes_turns else [list(share)]:
            trunk = _trunk_cost(spec, folder, cut, speed, [around.silos[name] for name in names])
            trunks.append(replace(trunk, bytes_per_second=around.trunk_bytes_per_second))
            steps.append(_step(spec, [costs[name] for name in names], trunks[-1], around.cores))
        replicas.append(_one_after_the_other(steps))
    step_of_all = hierarchical_step_seconds(replicas, num_workers=num_workers, cores=around.cores)
    sums, num_bytes = sums_per_round(spec), _sum_bytes(spec, folder, cut)
    lines = [place.line for place in around.silos.values()]
    sum_seconds = max(_SUM_ROUND_TRIPS * line.round_trip_seconds + line.seconds(num_bytes) for line in lines)
    silos_in_turn = max(map(len, spec.shares)) if spec.takes_turns else 1
    micro_batches = spec.accumulation_steps
    return Prediction(
        step_seconds=step_of_all / silos_in_turn,
        round_seconds=step_of_all * spec.steps_per_round + sums * sum_seconds,
        step_bytes=round(statistics.fmean(cost.bytes_per_batch for cost in costs.values()) * micro_batches),
        max_step_bytes=_batch_bytes(spec, folder, spec.max_tokens) * micro_batches,
        sum_bytes=num_bytes,
        sums_per_round=sums,
        silo_seconds=max(_computed(spec, cost) for cost in costs.values()),
        trunk_seconds=max(_computed(spec, trunk) for trunk in trunks),
    )


def silo_step_seconds(spec: JobSpec, folder: ModelFolder, cut: Cut, place: SiloPlace) -> float:
    """Return what a silo computes in a step of its own; the parameters are those of :func:`predict`."""
    return _computed(spec, _silo_cost(spec, folder, cut, place))


def trunk_step_seconds(
    spec: JobSpec, folder: ModelFolder, cut: Cut, speed: Speed, silos: Sequence[SiloPlace]
) -> float:
    """Return what a trunk computes in a step of silos that it serves at once; see :func:`predict`."""
    return _computed(spec, _trunk_cost(spec, folder, cut, speed, silos))


def sum_bytes(num_words: int, *, num_silos: int) -> int:
    """Return the bytes of one silo in one secure sum, both directions: its numbers and their total.

    Args:
        num_words: Numbers that the silo's blocks train.
        num_silos: Over which is summed.
    """
    parts = math.ceil(num_words / _SUM_PART_WORDS)
    told = _SUM_BYTES_ONCE + num_silos * _SUM_BYTES_PER_MEMBER
    return 2 * num_words * _WORD_BYTES + told + 2 * parts * _FRAME_BYTES


def sums_per_round(spec: JobSpec) -> int:
    """Return how many secure sums of the silos' blocks a round has."""
    if spec.silo_blocks != "averaged":
        return 0
    return math.ceil(spec.steps_per_round / (spec.averaging.every_steps or spec.steps_per_round))


def _computed(spec: JobSpec, cost: SiloCost | TrunkCost) -> float:
    return cost.batch_seconds * spec.accumulation_steps + cost.update_seconds


def _step(spec: JobSpec, silos: Sequence[SiloCost], trunk: TrunkCost, cores: Cores) -> ReplicaStep:
    """Return what a step of silos that are served at once takes."""
    micro_batches = spec.accumulation_steps
    return ReplicaStep(
        seconds=client_batching_step_seconds(silos, trunk, micro_batches=micro_batches, cores=cores),
        busy_seconds=busy_seconds(silos, trunk, micro_batches=micro_batches),
        held_seconds=micro_batches * sum(cost.interpreter_seconds for cost in silos),
    )


def _one_after_the_other(steps: Sequence[ReplicaStep]) -> ReplicaStep:
    return ReplicaStep(
        seconds=sum(step.seconds for step in steps),
        busy_seconds=sum(step.busy_seconds for step in steps),
        held_seconds=sum(step.held_seconds for step in steps),
    )


def _silo_cost(spec: JobSpec, folder: ModelFolder, cut: Cut, place: SiloPlace) -> SiloCost:
    speed = place.speed
    undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
    row_tokens = _row_tokens(spec, [place])
    works, updates = [], []
    for role in _SILO_ROLES:
        training = Training.of(spec, role, row_tokens=row_tokens)
        works.append(batch_work(folder, cut, role, training))
        updates.append(update_work(folder, cut, role, training, undoable=undoable))
    return SiloCost(
        batch_seconds=sum(work.seconds(speed) for work in works),
        held_seconds=sum(work.layer_calls * speed.layer_seconds for work in works),
        update_seconds=sum(update.seconds(speed) for update in updates),
        message_seconds=speed.message_seconds,
        bytes_per_batch=_batch_bytes(spec, folder, row_tokens),
        line=place.line,
    )


def _trunk_cost(
    spec: JobSpec, folder: ModelFolder, cut: Cut, speed: Speed, silos: Sequence[SiloPlace]
) -> TrunkCost:
    training = Training.of(spec, Role.TRUNK, num_silos=len(silos), row_tokens=_row_tokens(spec, silos))
    work = batch_work(folder, cut, Role.TRUNK, training)
    update = update_work(folder, cut, Role.TRUNK, training, undoable=False)
    return TrunkCost(
        batch_seconds=work.seconds(speed),
        update_seconds=update.seconds(speed),
        message_seconds=speed.message_seconds,
    )


def _row_tokens(spec: JobSpec, silos: Sequence[SiloPlace]) -> int:
    known = [spec.max_tokens if place.row_tokens is None else place.row_tokens for place in silos]
    return max(1, min(spec.max_tokens, round(statistics.fmean(known))))


def _batch_bytes(spec: JobSpec, folder: ModelFolder, row_tokens: int) -> int:
    per_token = wire_bytes_per_token(
        folder.hidden_size, spec.codec, bottom_trains=spec.silo_blocks != "frozen"
    )
    batch = Batch(spec.batch_size, row_tokens)
    return per_token * batch.cells + _BATCH_FRAMES * _FRAME_BYTES + batch.rows * _ROW_BYTES


def _sum_bytes(spec: JobSpec, folder: ModelFolder, cut: Cut) -> int:
    if not sums_per_round(spec):
        return 0
    words = trained_parameters(folder, cut, _SILO_ROLES, Training.of(spec, Role.TOP))
    return sum_bytes(words, num_silos=len(spec.silos))
