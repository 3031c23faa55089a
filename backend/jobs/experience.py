"""What an earlier job tells of a party that took part in it: how fast it computed, and how long rows were.

A party's speed is known up to a factor. It follows from what the party computed in a step, by the numbers
that it sent, against what the planner says of that step.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, JobState, Lease, Metric, Model, Silo, Worker
from backend.metrics.reporters import silo_party, worker_party
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
"""The share of these that counts, the newest: a process's first steps take longer."""

_SPEED_GOES_WITH: Mapping[str, Callable[[JobSpec], object]] = {
    "precision": lambda spec: spec.precision,
    "adapter": lambda spec: spec.adapter.kind,
    "gradient_checkpointing": lambda spec: spec.gradient_checkpointing,
    "model": lambda spec: spec.model,
}
"""What changes how fast a device is at what the planner takes for the same work; the weightiest first."""


@dataclass(frozen=True, slots=True)
class KnownSpeed:
    """How fast a party is.

    Attributes:
        speed: In a job as it is asked for.
        unlike: Fields in which the job that it was learned from is another, so that it may be wrong.
    """

    speed: Speed
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SiloExperience:
    """What a silo's earlier jobs tell of it.

    Attributes:
        speed: None where they do not tell.
        round_trip_seconds: To the gateway and back; None where that was not measured.
        row_tokens: Of the rows that the asked job would train on, in the mean; None where none had them.
    """

    speed: KnownSpeed | None = None
    round_trip_seconds: float | None = None
    row_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class _Past:
    """A party's part in an earlier job.

    Attributes:
        job: The job.
        party: Whose numbers are the party's.
        dataset: The silo's; None for a worker.
        at_once: How many silos the trunk served at once.
    """

    job: Job
    party: str
    dataset: str | None = None
    at_once: int = 1

    @property
    def spec(self) -> JobSpec:
        return _parsed(self.job.spec_bytes)

    def cut(self, session: Session) -> tuple[ModelFolder, Cut] | None:
        """Return the model and where it was cut; None where nothing is known of it any more."""
        model = session.get(Model, self.job.model_id) if self.job.model_id else None
        if model is None or model.manifest is None:
            return None
        folder = ModelManifest.model_validate(model.manifest).folder()
        layers = self.spec.silos[0].cut
        return folder, folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)


def experience_of(session: Session, spec: JobSpec, silo: Silo) -> SiloExperience:
    """Return what is known of a silo by jobs that it finished.

    Args:
        session: Of the database.
        spec: The asked job, the silo in its roster.
        silo: The silo.
    """
    query = (
        select(Job, JobSilo.dataset)
        .join(JobSilo, JobSilo.job_id == Job.id)
        .where(JobSilo.silo_id == silo.id, JobSilo.finish_outcome == "completed")
        .order_by(JobSilo.finished_at.desc())
        .limit(_LOOKED_AT)
    )
    party = silo_party(silo.name)
    newest = [_Past(job, party, dataset) for job, dataset in session.execute(query).all()]
    dataset = spec.silos[spec.silo_index(silo.name)].dataset
    speed = None
    for past in sorted(newest, key=lambda past: _likeness(spec, past, dataset), reverse=True):
        computed = usual(_numbers(session, past.job, "compute_seconds", party))
        if computed is not None and (cut := past.cut(session)) is not None:
            place = SiloPlace(NOMINAL_SPEED, row_tokens=_length(session, past))
            usually = silo_step_seconds(past.spec, *cut, place)
            speed = KnownSpeed(NOMINAL_SPEED.times(usually / computed), _unlike(spec, past))
            break
    lengths = (_length(session, past) for past in newest if _has_the_same_rows(spec, past, dataset))
    known = next((length for length in lengths if length is not None), None)
    return SiloExperience(speed, _round_trip(session, newest), known)


def speed_of_worker(session: Session, spec: JobSpec, worker: Worker, told: Speed) -> KnownSpeed:
    """Return a worker's speed by a job whose trunk it hosted; without one, what it told itself.

    Args:
        session: Of the database.
        spec: The asked job.
        worker: The worker. What it did before its last start, perhaps on another device, does not count.
        told: Its speed by its own test, which a busy machine slows down.
    """
    query = (
        select(Job, Lease.replica)
        .join(Lease, Lease.job_id == Job.id)
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
    newest = []
    for job, replica in session.execute(query).all():
        earlier = _parsed(job.spec_bytes)
        if replica < len(earlier.shares):  # no meeting
            at_once = 1 if earlier.takes_turns else len(earlier.shares[replica])
            newest.append(_Past(job, worker_party(job, worker.name, replica), at_once=at_once))
    for past in sorted(newest, key=lambda past: _likeness(spec, past), reverse=True):
        computed = usual(_numbers(session, past.job, "compute_seconds", past.party))
        if computed is not None and (cut := past.cut(session)) is not None:
            places = [SiloPlace(told, row_tokens=_length(session, past))] * past.at_once
            usually = trunk_step_seconds(past.spec, *cut, told, places)
            return KnownSpeed(told.times(usually / computed), _unlike(spec, past))
    return KnownSpeed(told)


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


def _likeness(spec: JobSpec, past: _Past, dataset: str | None = None) -> tuple[bool, ...]:
    """Return in what an earlier job is like the asked one, the weightiest first."""
    unlike = _unlike(spec, past)
    return *(name not in unlike for name in _SPEED_GOES_WITH), _has_the_same_rows(spec, past, dataset)


def _unlike(spec: JobSpec, past: _Past) -> tuple[str, ...]:
    return tuple(name for name, value in _SPEED_GOES_WITH.items() if value(spec) != value(past.spec))


def _has_the_same_rows(spec: JobSpec, past: _Past, dataset: str | None) -> bool:
    """Whether the same data set would become the same tokens in both."""
    earlier = past.spec
    return (spec.model, spec.task, spec.max_tokens, dataset) == (
        earlier.model,
        earlier.task,
        earlier.max_tokens,
        past.dataset,
    )


@lru_cache(maxsize=2 * _LOOKED_AT)
def _parsed(spec_bytes: bytes) -> JobSpec:
    """Return a job's specification; kept, because all silos of a roster ask for the same ones."""
    return JobSpec.parse(spec_bytes)


def _length(session: Session, past: _Past) -> float | None:
    """Return the mean length of a silo's rows in a job, of all silos' where the party is a worker."""
    party = None if past.dataset is None else past.party
    return row_tokens(past.spec, _numbers(session, past.job, "valid_tokens", party))


def _round_trip(session: Session, pasts: Sequence[_Past]) -> float | None:
    """Return the shortest ping of these jobs: one that meets a busy machine takes longer, none less."""
    query = select(func.min(Metric.value)).where(
        Metric.job_id.in_([past.job.id for past in pasts]),
        Metric.party.in_({past.party for past in pasts}),
        Metric.name == "round_trip_seconds",
    )
    return session.scalar(query) if pasts else None


def _numbers(session: Session, job: Job, name: str, party: str | None = None) -> Iterator[float]:
    """Yield the newest numbers of one kind: of one party by the primary key, of all by their arrival."""
    query = select(Metric.value).where(Metric.job_id == job.id, Metric.name == name)
    if party is None:
        query = query.order_by(Metric.number.desc())
    else:
        query = query.where(Metric.party == party).order_by(Metric.round.desc(), Metric.step.desc())
    yield from session.scalars(query.limit(_NUMBERS))
