"""What is known of whoever would take part in a job: speeds and lines, as parties have told of them.

A worker tells its speed when it starts. A silo's follows from its last job: what it computed there, by the
numbers that it sent, against what the planner says of that job. Where nothing is known, something usual is
taken, and said.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Job, JobSilo, Metric, Model, Silo, Worker
from splitlearn.control_plane.schemas import CapabilitiesBody
from splitlearn.planning import (
    NOMINAL_SPEED,
    Line,
    ModelManifest,
    SiloPlace,
    Speed,
    Surroundings,
    predict,
)
from splitlearn.spec import JobSpec

_ROUND_TRIP_SECONDS = 0.02  # between two sites of one country
_NUMBERS = 50
"""Of a silo's newest steps: enough for a median."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a job's surroundings.

    Attributes:
        around: For the planner.
        assumptions: Sentences about what is not known, and what was taken instead.
    """

    around: Surroundings
    assumptions: tuple[str, ...]


def surroundings_of(session: Session, silos: Sequence[Silo], workers: Sequence[Worker]) -> Known:
    """Return what is known of these.

    Args:
        session: Of the database.
        silos: The job's roster.
        workers: That could host its trunk, the one that would be taken first.
    """
    assumptions: list[str] = []
    trunk = _speed_of(workers[0]) if workers else None
    if trunk is None:
        who = f"worker {workers[0].name!r} has not told its speed" if workers else "no worker can take it now"
        assumptions.append(f"{who}: its seconds are those of one usual core")
    found = {silo.name: _place_of(session, silo) for silo in silos}
    without_speed = [name for name, (speed, _) in found.items() if speed is None]
    if without_speed:
        assumptions.append(f"{_names(without_speed)} finished no job yet: taken for one usual core each")
    without_line = [name for name, (_, trip) in found.items() if trip is None]
    if without_line:
        assumptions.append(
            f"the round trip of {_names(without_line)} was not measured: taken for {_ROUND_TRIP_SECONDS:g} s"
        )
    assumptions.append(
        "every party is taken to have its cores to itself, lines to be no narrower than needed, "
        "every row to be max_tokens long"
    )
    places = {
        name: SiloPlace(speed or NOMINAL_SPEED, Line(_ROUND_TRIP_SECONDS if trip is None else trip))
        for name, (speed, trip) in found.items()
    }
    around = Surroundings(trunk=trunk or NOMINAL_SPEED, silos=places, num_workers=max(1, len(workers)))
    return Known(around, tuple(assumptions))


def _speed_of(worker: Worker) -> Speed | None:
    told = CapabilitiesBody.model_validate(worker.capabilities) if worker.capabilities else None
    return told.speed.speed() if told is not None and told.speed is not None else None


def _place_of(session: Session, silo: Silo) -> tuple[Speed | None, float | None]:
    """Return a silo's speed and round trip by its last job; None for what that does not tell."""
    query = (
        select(Job, Model)
        .join(JobSilo, JobSilo.job_id == Job.id)
        .join(Model, Model.id == Job.model_id)
        .where(JobSilo.silo_id == silo.id, JobSilo.finish_outcome == "completed")
        .order_by(JobSilo.finished_at.desc())
        .limit(1)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return None, None
    job, model = found
    computed = list(_numbers(session, job, silo, "compute_seconds"))
    trips = list(_numbers(session, job, silo, "round_trip_seconds"))
    speed = None
    if computed and model.manifest is not None:
        manifest = ModelManifest.model_validate(model.manifest)
        speed = speed_by_step(JobSpec.parse(job.spec_bytes), manifest, statistics.median(computed))
    return speed, (statistics.median(trips) if trips else None)


def speed_by_step(spec: JobSpec, manifest: ModelManifest, seconds: float) -> Speed | None:
    """Return the speed of a silo that computed for so long in each step of a job; None where that is no time.

    Args:
        spec: The job.
        manifest: Its model.
        seconds: In the median over its steps.
    """
    if seconds <= 0:
        return None
    folder, layers = manifest.folder(), spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    nominal = SiloPlace(NOMINAL_SPEED)
    around = Surroundings(trunk=NOMINAL_SPEED, silos={silo.name: nominal for silo in spec.silos})
    return NOMINAL_SPEED.times(predict(spec, folder, cut, around).silo_seconds / seconds)


def _numbers(session: Session, job: Job, silo: Silo, name: str) -> Iterator[float]:
    """Yield the newest numbers of one kind, found by the primary key's beginning."""
    query = (
        select(Metric.value)
        .where(Metric.job_id == job.id, Metric.party == f"silo:{silo.name}", Metric.name == name)
        .order_by(Metric.round.desc(), Metric.step.desc())
        .limit(_NUMBERS)
    )
    yield from session.scalars(query)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
