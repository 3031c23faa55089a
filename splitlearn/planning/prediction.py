"""What a job is going to take: seconds and bytes of a step and a round, from what is known of its parties."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """What is known of a silo: how fast it computes, and its line to the worker."""

    speed: Speed
    line: Line = NO_DELAY


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of whoever takes part in a job.

    Attributes:
        trunk: Speed of the worker; of several the slowest.
        silos: Of the roster, by name.
        num_workers: That would host replicas.
        trunk_bytes_per_second: Of the worker's own line; None where it is no limit.
        cores: Who shares processors.
    """

    trunk: Speed
    silos: Mapping[str, SiloPlace]
    num_workers: int = 1
    trunk_bytes_per_second: float | None = None
    cores: Cores = OWN_CORES


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a job is going to take.

    Attributes:
        step_seconds: Of one optimiser step: of one silo's batch where silos take turns, else of every silo's.
        round_seconds: Of a round: ``steps_per_round`` steps of every silo, the secure sums included;
        evaluation
            and checkpoints are not.
        step_bytes: Of one silo in one of its steps, both directions, secure sums not included.
        sum_bytes: Of one silo in one secure sum of its blocks, both directions; 0 where there is none.
        sums_per_round: How many of these a round has.
        silo_seconds: What the slowest silo computes in a step of its own.
        trunk_seconds: What the trunk, or the busiest replica, computes in a step.
    """

    step_seconds: float
    round_seconds: float
    step_bytes: int
    sum_bytes: int
    sums_per_round: int
    silo_seconds: float
    trunk_seconds: float


def predict(spec: JobSpec, folder: ModelFolder, cut: Cut, around: Surroundings) -> Prediction:
    """Predict what a job takes.

    Every row is taken for ``max_tokens`` long: what is shorter takes less.

    Args:
        spec: The job, with a schedule other than ``auto``.
        folder: Its model.
        cut: Where it is cut.
        around: Whoever takes part, each silo of the roster by name.
    """
    costs = {name: _silo_cost(spec, folder, cut, place) for name, place in around.silos.items()}
    groups = [[costs[name] for name in share] for share in spec.shares]
    trunk = _trunk_cost(spec, folder, cut, around, num_silos=_served_at_once(spec))
    replicas = [_step_of_all(spec, group, trunk, around.cores) for group in groups]
    step_of_all = hierarchical_step_seconds(
        replicas, num_workers=min(around.num_workers, len(groups)), cores=around.cores
    )
    sums, num_bytes = sums_per_round(spec), _sum_bytes(spec, folder, cut)
    lines = [place.line for place in around.silos.values()]
    sum_seconds = max(_SUM_ROUND_TRIPS * line.round_trip_seconds + line.seconds(num_bytes) for line in lines)
    silos_in_turn = max(map(len, groups)) if spec.takes_turns else 1
    micro_batches = spec.accumulation_steps
    return Prediction(
        step_seconds=step_of_all / silos_in_turn,
        round_seconds=step_of_all * spec.steps_per_round + sums * sum_seconds,
        step_bytes=_batch_bytes(spec, folder) * micro_batches,
        sum_bytes=num_bytes,
        sums_per_round=sums,
        silo_seconds=max(cost.batch_seconds * micro_batches + cost.update_seconds for cost in costs.values()),
        trunk_seconds=trunk.batch_seconds * micro_batches + trunk.update_seconds,
    )


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


def _served_at_once(spec: JobSpec) -> int:
    return 1 if spec.takes_turns else max(map(len, spec.shares))


def _step_of_all(spec: JobSpec, costs: Sequence[SiloCost], trunk: TrunkCost, cores: Cores) -> ReplicaStep:
    """Return what it takes until each of a replica's silos has done one step."""
    micro_batches = spec.accumulation_steps
    at_once = [[cost] for cost in costs] if spec.takes_turns else [list(costs)]
    return ReplicaStep(
        seconds=sum(
            client_batching_step_seconds(silos, trunk, micro_batches=micro_batches, cores=cores)
            for silos in at_once
        ),
        busy_seconds=sum(busy_seconds(silos, trunk, micro_batches=micro_batches) for silos in at_once),
        held_seconds=micro_batches * sum(cost.interpreter_seconds for cost in costs),
    )


def _silo_cost(spec: JobSpec, folder: ModelFolder, cut: Cut, place: SiloPlace) -> SiloCost:
    speed = place.speed
    undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
    works, updates = [], []
    for role in _SILO_ROLES:
        training = Training.of(spec, role)
        works.append(batch_work(folder, cut, role, training))
        updates.append(update_work(folder, cut, role, training, undoable=undoable))
    return SiloCost(
        batch_seconds=sum(work.seconds(speed) for work in works),
        held_seconds=sum(work.layer_calls * speed.layer_seconds for work in works),
        update_seconds=sum(update.seconds(speed) for update in updates),
        message_seconds=speed.message_seconds,
        bytes_per_batch=_batch_bytes(spec, folder),
        line=place.line,
    )


def _trunk_cost(
    spec: JobSpec, folder: ModelFolder, cut: Cut, around: Surroundings, *, num_silos: int
) -> TrunkCost:
    speed, training = around.trunk, Training.of(spec, Role.TRUNK, num_silos=num_silos)
    work = batch_work(folder, cut, Role.TRUNK, training)
    update = update_work(folder, cut, Role.TRUNK, training, undoable=False)
    return TrunkCost(
        batch_seconds=work.seconds(speed),
        update_seconds=update.seconds(speed),
        message_seconds=speed.message_seconds,
        bytes_per_second=around.trunk_bytes_per_second,
    )


def _batch_bytes(spec: JobSpec, folder: ModelFolder) -> int:
    per_token = wire_bytes_per_token(
        folder.hidden_size, spec.codec, bottom_trains=spec.silo_blocks != "frozen"
    )
    batch = Batch(spec.batch_size, spec.max_tokens)
    return per_token * batch.cells + _BATCH_FRAMES * _FRAME_BYTES + batch.rows * _ROW_BYTES


def _sum_bytes(spec: JobSpec, folder: ModelFolder, cut: Cut) -> int:
    if not sums_per_round(spec):
        return 0
    words = trained_parameters(folder, cut, _SILO_ROLES, Training.of(spec, Role.TOP))
    return sum_bytes(words, num_silos=len(spec.silos))
