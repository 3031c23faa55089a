"""What ``schedule: auto`` becomes at submission: by the workers that are there and what the job needs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from backend.db.models import Silo, Worker
from backend.jobs.needs import need_of
from backend.jobs.overview import worker_view
from backend.jobs.placing import what_lacks
from backend.jobs.surroundings import Known, surroundings_of
from backend.parties.repository import online_workers
from backend.settings import Settings
from splitlearn.errors import UnservedError
from splitlearn.planning import (
    Candidate,
    Choice,
    Host,
    ModelManifest,
    Role,
    Training,
    choose_schedule,
    estimate_memory,
    possible_schedules,
    predict,
)
from splitlearn.spec import JobSpec

AUTO = "auto"


def choose(
    session: Session,
    settings: Settings,
    spec: JobSpec,
    manifest: ModelManifest,
    silos: Sequence[Silo],
    *,
    now: datetime,
) -> Choice:
    """Choose a job's schedule.

    Args:
        session: Of the database.
        settings: Who counts as online.
        spec: The job, with schedule ``auto``.
        manifest: Its model.
        silos: Its roster.
        now: The server's time.
    """
    workers = able_workers(session, settings, spec, manifest, silos, now=now)
    known = surroundings_of(session, spec, silos, workers)
    hosts = [Host(worker.name, worker_view(worker).memory_bytes) for worker in workers]
    candidates = [
        candidate(each, manifest, known)
        for each in possible_schedules(spec, num_hosts=len(hosts), hierarchical=True)
        if _is_served(each)
    ]
    return choose_schedule(candidates, hosts)


def able_workers(
    session: Session,
    settings: Settings,
    spec: JobSpec,
    manifest: ModelManifest,
    silos: Sequence[Silo],
    *,
    now: datetime,
) -> list[Worker]:
    """Return the online workers that could host the job's trunk but for its size, the fastest first."""
    need = replace(need_of(manifest, spec), lasting_bytes=0)
    found = [
        (worker, view)
        for worker in online_workers(session, settings, silos[0].organization_id, now=now)
        if not (view := worker_view(worker)).is_drained and what_lacks(view, need) is None
    ]
    found.sort(key=lambda pair: (-pair[1].tokens_per_second, pair[1].name))
    return [worker for worker, _ in found]


def candidate(spec: JobSpec, manifest: ModelManifest, known: Known) -> Candidate:
    """Return what a job takes with a schedule."""
    folder, layers = manifest.folder(), spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    memory = estimate_memory(folder, cut, Role.TRUNK, Training.of(spec, Role.TRUNK))
    return Candidate(spec, memory.total, predict(spec, folder, cut, known.around))


def _is_served(spec: JobSpec) -> bool:
    try:
        spec.refuse_unserved()
    except UnservedError:
        return False
    return True
