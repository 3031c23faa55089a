"""A training step split into silo, wire and trunk, out of what both ends report of it.

A silo tells how long a step took and how long it computed itself; the worker, how long the trunk computed in
that step. The rest went by on the wire, and in waiting for other silos. Whoever's numbers come second
completes the step: the job's row, locked by the first, puts them in order.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.auth.callers import PartyCaller
from backend.db.models import Metric, PartyKind
from backend.metrics import service
from backend.metrics.reporters import Reporter
from backend.watching.watch import Watch
from splitlearn.control_plane.schemas import MetricPoint

WHOLE, COMPUTED, WIRE = "seconds", "compute_seconds", "wire_seconds"
"""Names of numbers: sent by silos, sent by silos and workers, and written here into the silo's."""

_Step = tuple[int, int]


def count(watch: Watch, caller: PartyCaller, points: Sequence[MetricPoint]) -> None:
    """Count what a party reports of steps.

    Args:
        watch: Counts.
        caller: Who reports.
        points: What was not known before, so that a batch that is sent again counts once.
    """
    watch.metric_points.labels(caller.kind.value).inc(len(points))
    part = "silo" if caller.kind is PartyKind.SILO else "trunk"
    for point in points:
        if point.step < 0:
            continue
        match point.name:
            case "seconds" if caller.kind is PartyKind.SILO:
                watch.steps.inc()
                watch.step_seconds.observe(point.value)
            case "compute_seconds":
                watch.step_parts.labels(part).observe(point.value)
            case "label_tokens" | "valid_tokens" if point.value >= 0:
                watch.tokens.labels(point.name.removesuffix("_tokens")).inc(point.value)


def split(
    session: Session,
    job_id: uuid.UUID,
    reporter: Reporter,
    points: Sequence[MetricPoint],
    *,
    now: datetime,
) -> list[float]:
    """Write down the wire's part of every step that these points complete; return new parts in seconds.

    Args:
        session: The transaction in which the points were kept.
        job_id: The job.
        reporter: Who sent them.
        points: What was sent.
        now: The server's time.
    """
    steps = {(point.round, point.step) for point in points if point.name == COMPUTED and point.step >= 0}
    if not steps or not reporter.others:
        return []
    is_silo = reporter.kind is PartyKind.SILO
    silos = [reporter.party] if is_silo else list(reporter.others)
    worker = reporter.others[0] if is_silo else reporter.party
    known = _known(session, job_id, silos, worker, steps)
    new: list[float] = []
    for party in silos:
        found = [
            MetricPoint(name=WIRE, round=step[0], step=step[1], value=seconds)
            for step in sorted(steps)
            if (seconds := _wire(known[step], party, worker)) is not None
        ]
        if found:
            new += [point.value for point in service.keep(session, job_id, party, found, now=now)]
    return new


def _wire(known: dict[tuple[str, str], float], party: str, worker: str) -> float | None:
    whole, own = known.get((party, WHOLE)), known.get((party, COMPUTED))
    trunk = known.get((worker, COMPUTED))
    if whole is None or own is None or trunk is None:
        return None
    return max(0.0, whole - own - trunk)  # with several micro-batches, both ends may compute at the same time


def _known(
    session: Session, job_id: uuid.UUID, silos: list[str], worker: str, steps: set[_Step]
) -> defaultdict[_Step, dict[tuple[str, str], float]]:
    # Every part of the key is named, so that the key's index answers, however many numbers the job has.
    query = select(Metric.party, Metric.name, Metric.round, Metric.step, Metric.value).where(
        Metric.job_id == job_id,
        Metric.party.in_([*silos, worker]),
        Metric.name.in_([WHOLE, COMPUTED]),
        Metric.round.in_(sorted({number for number, _ in steps})),
        Metric.step.in_(sorted({step for _, step in steps})),
    )
    known: defaultdict[_Step, dict[tuple[str, str], float]] = defaultdict(dict)
    for party, name, number, step, value in session.execute(query).all():
        known[number, step][party, name] = value
    return known
