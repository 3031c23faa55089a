"""``trunkline jobs export``: a job's numbers for MLflow or TensorBoard, each a library of its own extra."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from backend.cli.output import USAGE_EXIT_CODE, CommandError

_OF_A_ROUND = -1
_BATCH = 1000
"""Most numbers that MLflow takes in one request."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number, named ``PARTY/NAME`` for a step and ``PARTY/round/NAME`` for a whole round.

    Attributes:
        step: The global step, or the round.
        seconds: Since 1970, when the control plane received it.
    """

    tag: str
    step: int
    value: float
    seconds: float


def scalars(rows: Iterable[dict[str, Any]]) -> Iterator[Scalar]:
    """Return a job's numbers as both tools name them."""
    for row in rows:
        party = str(row["party"]).replace(":", "/", 1)
        is_of_round = row["step"] == _OF_A_ROUND
        yield Scalar(
            tag=f"{party}/round/{row['name']}" if is_of_round else f"{party}/{row['name']}",
            step=row["round"] if is_of_round else row["step"],
            value=row["value"],
            seconds=datetime.fromisoformat(row["received_at"]).timestamp(),
        )


def to_tensorboard(job: dict[str, Any], found: Iterable[Scalar], folder: Path) -> int:
    """Write an event file for one job; return how many numbers it holds.

    Raises:
        CommandError: The library is not installed, or the folder cannot be written.
    """
    library = _library("tensorboardX", extra="tensorboard")
    number = 0
    try:
        with library.SummaryWriter(logdir=str(folder / job["id"])) as writer:
            for scalar in found:
                writer.add_scalar(scalar.tag, scalar.value, scalar.step, walltime=scalar.seconds)
                number += 1
    except OSError as error:
        raise CommandError(f"cannot write {folder}: {error.strerror}", exit_code=USAGE_EXIT_CODE) from error
    return number


def to_mlflow(job: dict[str, Any], found: Iterable[Scalar], uri: str) -> int:
    """Make a run of one job at a tracking server; return how many numbers it got.

    Raises:
        CommandError: The library is not installed, or the server refuses.
    """
    library = _library("mlflow", extra="mlflow")
    client = library.MlflowClient(tracking_uri=uri)
    metric_of = importlib.import_module("mlflow.entities").Metric
    number = 0
    try:
        name = f"trunkline/{job['name']}"
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"trunkline.job": job["id"], "trunkline.spec_digest": job["spec_digest"]}
        run = client.create_run(experiment_id, run_name=job["id"], tags=tags)
        rest = iter(found)
        while batch := list(islice(rest, _BATCH)):
            metrics = [
                metric_of(scalar.tag, scalar.value, round(scalar.seconds * 1000), scalar.step)
                for scalar in batch
            ]
            client.log_batch(run.info.run_id, metrics=metrics)
            number += len(batch)
        client.set_terminated(run.info.run_id, "FINISHED" if job["state"] == "completed" else "KILLED")
    except (library.exceptions.MlflowException, OSError) as error:
        said = str(error).partition("\n")[0]
        raise CommandError(f"MLflow at {uri} did not take the job: {said}") from error
    return number


def _library(name: str, *, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CommandError(
            f"exporting to {extra} needs a library that is not installed",
            remedy=f"pip install 'trunkline[{extra}]'",
            exit_code=USAGE_EXIT_CODE,
        ) from error
