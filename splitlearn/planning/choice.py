"""What ``schedule: auto`` becomes: the quickest way through a round that whoever is there can go. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from splitlearn.errors import SpecError
from splitlearn.planning.prediction import Prediction
from splitlearn.spec import JobSpec

DEFAULT_SCHEDULE = "client-batching"
_WORTH_IT = 1.25
"""Client-batching learns what one uncut model would; any other has to be faster by this factor."""


@dataclass(frozen=True, slots=True)
class Host:
    """A worker that could host a trunk; in one process, this machine.

    Attributes:
        name: For people.
        memory_bytes: Of all its devices; 0 where it is not known, which holds everything.
    """

    name: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run the job.

    Attributes:
        spec: The job with this schedule.
        trunk_bytes: Memory of its trunk, or of each replica.
        prediction: What it takes.
    """

    spec: JobSpec
    trunk_bytes: int
    prediction: Prediction

    @property
    def name(self) -> str:
        """The schedule, for people."""
        replicas = self.spec.replicas
        return f"{self.spec.schedule} with {replicas} replicas" if replicas > 1 else self.spec.schedule


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        spec: The job with the schedule that was chosen.
        reason: For people, without a full stop.
    """

    spec: JobSpec
    reason: str


def with_schedule(spec: JobSpec, schedule: str, *, replicas: int = 1) -> JobSpec | None:
    """Return the job with another schedule; None where its other fields do not allow that.

    Args:
        spec: The job.
        schedule: Other than ``auto``.
        replicas: With ``hierarchical``.
    """
    fields = {**spec.model_dump(mode="json"), "schedule": schedule, "replicas": replicas}
    if schedule != "hierarchical":
        fields = {name: value for name, value in fields.items() if not name.startswith("replica")}
    try:
        return JobSpec.parse(fields)
    except SpecError:
        return None


def possible_schedules(spec: JobSpec, *, num_hosts: int, hierarchical: bool) -> Iterator[JobSpec]:
    """Yield the job with every schedule that it could have.

    Args:
        spec: The job; its ``replicas`` says how many at most, 1 for as many as there are hosts.
        num_hosts: Workers that are there.
        hierarchical: Whether that schedule is served here.
    """
    found = [with_schedule(spec, DEFAULT_SCHEDULE), with_schedule(spec, "serial")]
    most = min(num_hosts, len(spec.silos), spec.replicas if spec.replicas > 1 else num_hosts)
    if hierarchical:
        found += [with_schedule(spec, "hierarchical", replicas=number) for number in range(2, most + 1)]
    yield from (each for each in found if each is not None)


def choose_schedule(candidates: Sequence[Candidate], hosts: Sequence[Host]) -> Choice:
    """Choose a schedule.

    Client-batching, unless another's round is shorter by a quarter, or its trunk fits nobody. Replicas only
    where there is a host for each. Where nobody is there or nothing fits, client-batching: the job then
    waits, and says what for.

    Args:
        candidates: For the schedules that :func:`possible_schedules` yields; client-batching is one of them.
        hosts: Who is there.
    """
    default = next(each for each in candidates if each.spec.schedule == DEFAULT_SCHEDULE)
    if len(default.spec.silos) == 1:
        return Choice(default.spec, "one silo: every schedule is the same")
    if not hosts:
        return Choice(default.spec, "no worker is there: taken is what learns as one uncut model would")
    fitting = [each for each in candidates if _num_holding(each, hosts) >= each.spec.replicas]
    if not fitting:
        return Choice(default.spec, f"no trunk fits any of {len(hosts)} workers: it {_needs(default)}")
    ranked = sorted(fitting, key=_weighed)  # which keeps the first of equals
    return Choice(ranked[0].spec, _reason(ranked, default, hosts))


def _weighed(candidate: Candidate) -> float:
    is_default = candidate.spec.schedule == DEFAULT_SCHEDULE
    return candidate.prediction.round_seconds * (1.0 if is_default else _WORTH_IT)


def _reason(ranked: Sequence[Candidate], default: Candidate, hosts: Sequence[Host]) -> str:
    best, others = ranked[0], ranked[1:]
    workers = "1 worker" if len(hosts) == 1 else f"{len(hosts)} workers"
    sentence = f"{workers}; a round takes about {_seconds(best)} {best.name}"
    if others:
        sentence += f", {_seconds(others[0])} {others[0].name}"
    if default not in ranked:
        sentence += f"; the trunk of all silos at once fits none: it {_needs(default)}"
    return sentence


def _num_holding(candidate: Candidate, hosts: Sequence[Host]) -> int:
    return sum(not host.memory_bytes or candidate.trunk_bytes <= host.memory_bytes for host in hosts)


def _needs(candidate: Candidate) -> str:
    return f"needs {candidate.trunk_bytes / (1 << 30):.2f} GiB"


def _seconds(candidate: Candidate) -> str:
    return f"{candidate.prediction.round_seconds:.3g} s"
