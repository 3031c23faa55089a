"""Which worker a job goes to, and whose turn it is, from what is known of jobs and workers. Pure."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Need:
    """What a job's trunk asks of a worker.

    Attributes:
        model: Digest of its model.
        family: The model's.
        precision: That the trunk is computed in.
        lasting_bytes: Weights, gradients and optimiser.
    """

    model: str
    family: str
    precision: str
    lasting_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that is online, as it has told of itself.

    Attributes:
        is_idle: Whether it has no lease.
        is_drained: Whether an admin keeps it from further rounds.
        memory_bytes: Of all its devices.
        precisions: That it computes in.
        families: Of models that it can cut; empty where it does not tell.
        models: Digests of the models that it has at hand.
        tokens_per_second: Of a small trunk; 0 where it was not measured.
    """

    name: str
    is_idle: bool = True
    is_drained: bool = False
    memory_bytes: int = 0
    precisions: tuple[str, ...] = ("fp32",)
    families: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tokens_per_second: float = 0.0

    @property
    def may_take(self) -> bool:
        """Whether it could begin a trunk now."""
        return self.is_idle and not self.is_drained


def what_lacks(worker: WorkerView, need: Need | None) -> str | None:
    """Say what a worker lacks for a job; None where nothing.

    Args:
        worker: The worker.
        need: The job's; None where it is not known, which every worker may try.
    """
    if need is None:
        return None
    if need.precision not in worker.precisions:
        return f"it computes in {', '.join(worker.precisions) or 'nothing'}, not in {need.precision}"
    if worker.families and need.family not in worker.families:
        return f"its version does not know the family {need.family}"
    if need.lasting_bytes > worker.memory_bytes:
        return (
            f"it has {_size(worker.memory_bytes)}, and weights, gradients and optimiser need "
            f"{_size(need.lasting_bytes)}"
        )
    return None


def choose(workers: Sequence[WorkerView], need: Need | None, *, last_worker: str | None) -> WorkerView | None:
    """Return whom to give a job to: of the capable and free ones the one that can begin soonest.

    That is who hosted it last, for its trunk may still be loaded there; then who has the model's layers;
    then the fastest; then the first by name.

    Args:
        workers: All that are online.
        need: What the job asks for.
        last_worker: Who held its lease last.
    """
    able = [worker for worker in workers if worker.may_take and what_lacks(worker, need) is None]
    model = "" if need is None else need.model

    def rank(worker: WorkerView) -> tuple[bool, bool, float, str]:
        is_last, has_model = worker.name == last_worker, model in worker.models
        return not is_last, not has_model, -worker.tokens_per_second, worker.name

    return min(able, key=rank, default=None)


class Claim(Protocol):
    """A job that waits for a worker, as far as its turn depends on it."""

    @property
    def project(self) -> Hashable:
        """Whose job it is."""

    @property
    def project_served_at(self) -> datetime | None:
        """When a job of its project gave a worker back last; None: never."""

    @property
    def served_at(self) -> datetime | None:
        """When the job itself did."""


C = TypeVar("C", bound=Claim)


def in_turn(waiting: Sequence[C], *, hosted_of: Callable[[Hashable], int]) -> list[C]:
    """Return jobs that wait in the order in which they get workers.

    Projects come first: the one with fewer jobs hosted now, then the one that gave a worker back longest ago.
    Of one project's jobs likewise the one that did. So each project gets as many turns as every other,
    however many jobs it has, and each job as many as its project's others.

    Args:
        waiting: Oldest first.
        hosted_of: Returns how many jobs of a project are hosted now.
    """

    def rank(job: C) -> tuple[int, float, float]:
        return hosted_of(job.project), _moment(job.project_served_at), _moment(job.served_at)

    return sorted(waiting, key=rank)  # which keeps the older one first


@dataclass(frozen=True, slots=True)
class Turn:
    """A job that is hosted, and others may wait for its worker.

    Attributes:
        worker: Who hosts it.
        project: Whose job it is.
        since: When its first round began.
    """

    worker: str
    project: Hashable
    since: datetime


def ending_turns(
    turns: Sequence[Turn], *, num_waiting: int, turn: timedelta, now: datetime
) -> tuple[Turn, ...]:
    """Return the turns that end with their round: no more than jobs wait, of the greediest projects first.

    Args:
        turns: Of the workers that those who wait could be given.
        num_waiting: Jobs that no free worker can take.
        turn: How long a turn lasts at least.
        now: The server's time.
    """
    hosted: dict[Hashable, int] = {}
    for each in turns:
        hosted[each.project] = hosted.get(each.project, 0) + 1
    over = [each for each in turns if now >= each.since + turn]
    over.sort(key=lambda each: (-hosted[each.project], each.since, each.worker))
    return tuple(over[:num_waiting])


def _moment(at: datetime | None) -> float:
    return float("-inf") if at is None else at.timestamp()


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
