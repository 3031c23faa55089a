"""What is known of whoever would take part in a job: speeds and lines, as parties have told of them.

By what they computed in earlier jobs (:mod:`backend.jobs.experience`); a worker without one by the test of
its speed that it makes when it starts. Where nothing is known, something usual is taken, and said.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from backend.db.models import Silo, Worker
from backend.jobs.experience import KnownSpeed, SiloExperience, experience_of, speed_of_worker
from splitlearn.control_plane.schemas import CapabilitiesBody
from splitlearn.planning import NOMINAL_SPEED, Line, SiloPlace, Surroundings
from splitlearn.spec import JobSpec

_ROUND_TRIP_SECONDS = 0.02  # between two sites of one country


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a job's surroundings.

    Attributes:
        around: For the planner.
        assumptions: Sentences about what is not known, and what was taken instead.
    """

    around: Surroundings
    assumptions: tuple[str, ...]


def surroundings_of(
    session: Session, spec: JobSpec, silos: Sequence[Silo], workers: Sequence[Worker]
) -> Known:
    """Return what is known of these.

    Args:
        session: Of the database.
        spec: The job; its schedule may be open.
        silos: Its roster.
        workers: That could host its trunk, the one that would be taken first; at most one is asked for each
            silo, as there are no more replicas than silos.
    """
    hosts = workers[: len(silos)]
    known = {worker.name: _speed_of(session, spec, worker) for worker in hosts}
    found = {silo.name: experience_of(session, spec, silo) for silo in silos}
    trunks = [each.speed if each else NOMINAL_SPEED for each in known.values()] or [NOMINAL_SPEED]
    around = Surroundings(trunks=trunks, silos={name: _place(each) for name, each in found.items()})
    return Known(around, tuple(_assumptions(spec, known, found)))


def _speed_of(session: Session, spec: JobSpec, worker: Worker) -> KnownSpeed | None:
    told = CapabilitiesBody.model_validate(worker.capabilities) if worker.capabilities else None
    if told is None or told.speed is None:
        return None
    return speed_of_worker(session, spec, worker, told.speed.speed())


def _place(known: SiloExperience) -> SiloPlace:
    trip = known.round_trip_seconds
    return SiloPlace(
        known.speed.speed if known.speed else NOMINAL_SPEED,
        Line(_ROUND_TRIP_SECONDS if trip is None else trip),
        row_tokens=known.row_tokens,
    )


def _assumptions(
    spec: JobSpec, workers: Mapping[str, KnownSpeed | None], silos: Mapping[str, SiloExperience]
) -> Iterator[str]:
    if not workers:
        yield "no worker can take it now: its seconds are those of one usual core"
    for name in (name for name, speed in workers.items() if speed is None):
        yield f"worker {name!r} has not told its speed: its seconds are those of one usual core"
    if without := [name for name, known in silos.items() if known.speed is None]:
        yield f"{_names(without)} finished no job yet: taken for one usual core each"
    yield from _of_unlike({f"worker {name!r}": speed for name, speed in workers.items()})
    yield from _of_unlike({name: known.speed for name, known in silos.items()})
    yield from _of_lines(silos)
    yield from _of_rows(spec, silos)
    yield "every party is taken to have its cores to itself, lines to be no narrower than needed"


def _of_unlike(speeds: Mapping[str, KnownSpeed | None]) -> Iterator[str]:
    """Say whose speed was learned from a job of another kind."""
    names: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, known in speeds.items():
        if known is not None and known.unlike:
            names[known.unlike].append(name)
    for unlike, same in names.items():
        what = " and another ".join(unlike)
        yield f"the speed of {_names(same)} is by a job with another {what}: it may be far off"


def _of_lines(silos: Mapping[str, SiloExperience]) -> Iterator[str]:
    trips = {name: known.round_trip_seconds for name, known in silos.items()}
    if without := [name for name, trip in trips.items() if trip is None]:
        yield f"the round trip of {_names(without)} was not measured: taken for {_ROUND_TRIP_SECONDS:g} s"
    told = [f"{name} {1000 * trip:.3g} ms" for name, trip in trips.items() if trip is not None]
    if told:
        yield f"round trips between silo and gateway, the shortest ping of its last jobs: {_names(told)}"


def _of_rows(spec: JobSpec, silos: Mapping[str, SiloExperience]) -> Iterator[str]:
    lengths = {name: known.row_tokens for name, known in silos.items()}
    told = [f"{name}'s {tokens:.0f}" for name, tokens in lengths.items() if tokens is not None]
    if told:
        yield (
            f"rows are as long as in an earlier job: of {spec.max_tokens} tokens, {_names(told)} in the mean"
        )
    if without := [name for name, tokens in lengths.items() if tokens is None]:
        yield f"the rows of {_names(without)} are taken for max_tokens long each: {spec.max_tokens}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
