"""What an earlier job tells of a party that took part in it: how fast it computed, and how long rows were.

A party's speed is known up to a factor. It follows from what the party computed in a step, by the numbers
that it sent, against what the planner says of that step.
"""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, JobState, Lease, Metric, Model, Silo, Worker
from splitlearn.planning import (
    NOMINAL_SPEED,
    Cut,
    ModelFolder,
    ModelManifest,
    SiloPlace,
    Speed,
    silo_step_seconds,
    trunk_step_seconds,
)
from splitlearn.spec import JobSpec

_LOOKED_AT = 8
"""A party's newest jobs, of which the one that is most like the asked one is taken."""
_NUMBERS = 50
"""Of its newest steps: enough for a median."""
_WARM = 2 / 3
"""The share of these that counts, the newest: a process's first steps take twice as long."""


@dataclass(frozen=True, slots=True)
class SiloExperience:
    """What a silo's earlier job tells of it.

    Attributes:
        speed: None where the job does not tell.
        round_trip_seconds: To the gateway and back; None where that was not measured.
        row_tokens: Of the rows that the asked job would train on, in the mean; None where they were others.
    """

    speed: Speed | None = None
    round_trip_seconds: float | None = None
    row_tokens: float | None = None


NO_EXPERIENCE = SiloExperience()


def experience_of(session: Session, spec: JobSpec, silo: Silo) -> SiloExperience:
    """Return what is known of a silo by a job that it finished.

    Args:
        session: Of the database.
        spec: The asked job, the silo in its roster.
        silo: The silo.
    """
    query = (
        select(Job, Model, JobSilo.dataset)
        .join(JobSilo, JobSilo.job_id == Job.id)
        .join(Model, Model.id == Job.model_id)
        .where(JobSilo.silo_id == silo.id, JobSilo.finish_outcome == "completed")
        .order_by(JobSilo.finished_at.desc())
        .limit(_LOOKED_AT)
    )
    rows = session.execute(query).all()
    found = max(rows, key=lambda row: _likeness(spec, row[0]), default=None)
    if found is None:
        return NO_EXPERIENCE
    job, model, dataset = found
    earlier = _parsed(job.spec_bytes)
    party = f"silo:{silo.name}"
    trips = list(_numbers(session, job, "round_trip_seconds", party))
    length = row_tokens(earlier, _numbers(session, job, "valid_tokens", party))
    computed = usual(_numbers(session, job, "compute_seconds", party))
    speed = None
    if computed is not None and model.manifest is not None:
        folder, cut = _cut_of(earlier, ModelManifest.model_validate(model.manifest))
        usually = silo_step_seconds(earlier, folder, cut, SiloPlace(NOMINAL_SPEED, row_tokens=length))
        speed = NOMINAL_SPEED.times(usually / computed)
    asked = spec.silos[spec.silo_index(silo.name)].dataset
    known = dataset == asked and _has_the_same_rows(spec, earlier)
    # The shortest: a ping that meets a busy machine takes longer, none takes less than the way.
    return SiloExperience(speed, min(trips, default=None), length if known else None)


def speed_of_worker(session: Session, spec: JobSpec, worker: Worker, told: Speed) -> Speed:
    """Return a worker's speed by the last job whose trunk it hosted; without one, what it told itself.

    Args:
        session: Of the database.
        spec: The asked job.
        worker: The worker. What it did before its last start, perhaps on another device, does not count.
        told: Its speed by its own test, which a busy machine slows down.
    """
    query = (
        select(Job, Model)
        .join(Lease, Lease.job_id == Job.id)
        .join(Model, Model.id == Job.model_id)
        .where(
            Lease.worker_id == worker.id,
            Lease.released_at.is_not(None),
            Lease.worker_epoch == worker.epoch,
            Job.state == JobState.COMPLETED,
            ~select(JobSilo).where(JobSilo.job_id == Job.id, JobSilo.finish_outcome != "completed").exists(),
        )
        .order_by(Lease.released_at.desc())
        .limit(_LOOKED_AT)
    )
    rows = session.execute(query).all()
    found = max(rows, key=lambda row: _likeness(spec, row[0]), default=None)
    if found is None:
        return told
    job, model = found
    earlier = _parsed(job.spec_bytes)
    computed = usual(_numbers(session, job, "compute_seconds", f"worker:{worker.name}"))
    # Of unequal shares it is not known which was this worker's.
    if computed is None or model.manifest is None or len(set(map(len, earlier.shares))) > 1:
        return told
    place = SiloPlace(told, row_tokens=row_tokens(earlier, _numbers(session, job, "valid_tokens")))
    at_once = [place] * (1 if earlier.takes_turns else len(earlier.shares[0]))
    folder, cut = _cut_of(earlier, ModelManifest.model_validate(model.manifest))
    return told.times(trunk_step_seconds(earlier, folder, cut, told, at_once) / computed)


def usual(newest_first: Iterable[float]) -> float | None:
    """Return the median of a party's numbers, those of its first steps left out; None where there is none.

    Args:
        newest_first: Numbers of steps; what is not positive was not measured.
    """
    values = [value for value in newest_first if value > 0]
    return statistics.median(values[: math.ceil(len(values) * _WARM)]) if values else None


def row_tokens(spec: JobSpec, valid_tokens: Iterable[float]) -> float | None:
    """Return how many tokens a row has in the mean; None where no step is known.

    Args:
        spec: The job.
        valid_tokens: Of steps of its silos.
    """
    steps = list(valid_tokens)
    if not steps:
        return None
    return min(spec.max_tokens, statistics.fmean(steps) / (spec.batch_size * spec.accumulation_steps))


def _likeness(spec: JobSpec, job: Job) -> tuple[bool, ...]:
    """Return how like an earlier job is, the weightiest first: half precision has a speed of its own."""
    earlier = _parsed(job.spec_bytes)
    return earlier.precision == spec.precision, earlier.model == spec.model, _has_the_same_rows(spec, earlier)


def _has_the_same_rows(spec: JobSpec, earlier: JobSpec) -> bool:
    """Whether the same data set would become the same tokens in both."""
    return (spec.model, spec.task, spec.max_tokens) == (earlier.model, earlier.task, earlier.max_tokens)


@lru_cache(maxsize=2 * _LOOKED_AT)
def _parsed(spec_bytes: bytes) -> JobSpec:
    """Return a job's specification; kept, because all silos of a roster ask for the same ones."""
    return JobSpec.parse(spec_bytes)


def _cut_of(spec: JobSpec, manifest: ModelManifest) -> tuple[ModelFolder, Cut]:
    folder, layers = manifest.folder(), spec.silos[0].cut
    return folder, folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)


def _numbers(session: Session, job: Job, name: str, party: str | None = None) -> Iterator[float]:
    """Yield the newest numbers of one kind: of one party by the primary key, of all by their arrival."""
    query = select(Metric.value).where(Metric.job_id == job.id, Metric.name == name)
    if party is None:
        query = query.order_by(Metric.number.desc())
    else:
        query = query.where(Metric.party == party).order_by(Metric.round.desc(), Metric.step.desc())
    yield from session.scalars(query.limit(_NUMBERS))
