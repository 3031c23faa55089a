"""One row of the split-step benchmark: the split run and its reference, taking turns."""

import asyncio
import statistics
import tempfile
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from bench.cases import Case
from bench.documents import (
    Credentials,
    Measured,
    SiloRequest,
    Task,
    WorkerAnswer,
    WorkerListens,
    WorkerRequest,
)
from bench.model_folder import write_model
from bench.processes import child
from bench.tables import say
from splitlearn.identity import Identity
from splitlearn.party_environment import KEPT_HEAP, LARGE_PAGES, PATIENT_WAITING, silo_environment
from splitlearn.simulation.roster import WORKER_NAME, Roster, enrol

_TOLD = ("OMP_WAIT_POLICY", *PATIENT_WAITING, *LARGE_PAGES, *KEPT_HEAP)

_PLATFORM_END_SECONDS = 60.0  # the parts are stopped in order

Link = Literal["platform", "websocket"]
LINKS: tuple[Link, ...] = get_args(Link)

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        warmup: Steps before the measurement.
        steps: Steps measured in each run.
        alternations: Runs of each side, in turn.
        threads: Torch's threads of each process.
    """

    warmup: int = 5
    steps: int = 20
    alternations: int = 3
    threads: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Environments:
    """The whole environment of the processes of either side."""

    split: Mapping[str, str]
    reference: Mapping[str, str]

    @property
    def waiting(self) -> dict[str, dict[str, str]]:
        """What either side is told about waiting threads and pages, for the record."""
        return {
            "split": {key: self.split[key] for key in _TOLD if key in self.split},
            "reference": {key: self.reference[key] for key in _TOLD if key in self.reference},
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one row.

    Attributes:
        case: What was trained.
        link: What lay between silo and worker.
        effort: How much was measured.
        splits: The split runs, in order.
        references: The reference's runs, in order.
    """

    case: Case
    link: Link
    effort: Effort
    splits: tuple[Measured, ...]
    references: tuple[Measured, ...]

    def row(self) -> dict[str, Any]:
        """Return the row for JSON; seconds are of one step."""
        splits = [statistics.median(run.step_seconds) for run in self.splits]
        references = [statistics.median(run.step_seconds) for run in self.references]
        split, reference = statistics.median(splits), statistics.median(references)
        bytes_per_step = statistics.median(run.bytes_per_step for run in self.splits)
        return {
            "link": self.link,
            "dim": self.case.dim,
            "layers": self.case.layers,
            "adapter": self.case.adapter,
            "clip": self.case.clip,
            "ratio": split / reference,
            "split_seconds": split,
            "centralised_seconds": reference,
            "bytes_per_token": bytes_per_step / self.case.num_tokens,
            "payload_bytes_per_token": self.case.payload_bytes_per_token,
            "split_cpu_seconds": _median(run.cpu_seconds for run in self.splits),
            "centralised_cpu_seconds": _median(run.cpu_seconds for run in self.references),
            "split_between_seconds": statistics.median(run.between_seconds for run in self.splits),
            "split_loss": self.splits[-1].losses[-1],
            "centralised_loss": self.references[-1].losses[-1],
            "split_runs_seconds": splits,
            "centralised_runs_seconds": references,
        }


async def compare(case: Case, effort: Effort, environments: Environments, *, link: Link) -> Comparison:
    """Run split and reference in turn, on a model made for it and deleted at the end.

    Neither leaves a process behind that the other would have to share the cores with.

    Raises:
        ChildError: A process failed.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
        model_folder = Path(folder) / "models" / "llama"
        write_model(case, model_folder)
        task = Task(
            spec=case.spec(model_folder=model_folder, num_steps=effort.warmup + effort.steps + 1),
            model_folder=model_folder,
            vocab_size=case.vocab_size,
            threads=effort.threads,
            warmup=effort.warmup,
            steps=effort.steps,
        )
        splits, references = [], []
        for number in range(effort.alternations):
            splits.append(await run_split(task, environments.split, link=link))
            references.append(await run_reference(task, environments.reference))
            say(_progress(number, effort, splits[-1], references[-1]))
    return Comparison(case, link, effort, tuple(splits), tuple(references))


async def run_split(task: Task, environment: Mapping[str, str], *, link: Link) -> Measured:
    """Train with silo and worker as processes of their own."""
    run = _run_on_platform if link == "platform" else _run_over_websocket
    return await run(task, environment)


async def _run_on_platform(task: Task, environment: Mapping[str, str]) -> Measured:
    """Train on a platform that is started for it and stopped after it."""
    async with child(
        "bench.platform_run", task, environment=environment, end_seconds=_PLATFORM_END_SECONDS
    ) as driver:
        measured = await driver.receive(Measured)
        await driver.finished()
    return measured


async def _run_over_websocket(task: Task, environment: Mapping[str, str]) -> Measured:
    """Train with silo and worker as two processes, and nothing between them."""
    roster = enrol(task.spec)
    silo_name = task.spec.silos[0].name
    worker_request = WorkerRequest(task=task, credentials=_credentials(roster.worker, roster))
    silo_request = SiloRequest(task=task, credentials=_credentials(roster.silos[silo_name], roster))
    async with (
        child("bench.worker", worker_request, environment=environment) as worker,
        child("bench.silo", silo_request, environment=silo_environment(environment)) as silo,
    ):
        silo.send(await worker.receive(WorkerListens))
        measured, answered = await _both(silo.receive(Measured), worker.receive(WorkerAnswer))
        await silo.finished()
        await worker.finished()
    assert measured.cpu_seconds is not None, "a silo has a clock"
    return measured.model_copy(update={"cpu_seconds": measured.cpu_seconds + answered.cpu_seconds})


async def run_reference(task: Task, environment: Mapping[str, str]) -> Measured:
    """Train the whole model in one process."""
    async with child("bench.reference", task, environment=environment) as reference:
        measured = await reference.receive(Measured)
        await reference.finished()
    return measured


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Wait for both; the first that fails ends the wait for the other."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


def _credentials(identity: Identity, roster: Roster) -> Credentials:
    return Credentials(
        certificate=identity.certificate.to_bytes(),
        private_key=identity.signing_key.private_bytes(),
        root_key=roster.trust.root_public_key.raw,
        worker_name=WORKER_NAME,
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _progress(number: int, effort: Effort, split: Measured, reference: Measured) -> str:
    ours, theirs = statistics.median(split.step_seconds), statistics.median(reference.step_seconds)
    return (
        f"  run {number + 1} of {effort.alternations}: split {ours:.3f} s, reference {theirs:.3f} s, "
        f"ratio {ours / theirs:.3f} (CPU {_said(split.cpu_seconds)} and {_said(reference.cpu_seconds)})"
    )


def _said(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.3f} s"
