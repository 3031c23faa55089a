"""Child process: a federation in one process, over lines with a delay; how long its steps took, its bytes.

Its own speed is measured before and after, so that what was predicted and what was measured met the same
machine.
"""

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from bench.cases import synthetic_records
from bench.child import end_with_parent, serve
from bench.delay_line import DelayedLines
from splitlearn.parties import Progress, TrunkStepped
from splitlearn.planning import Speed
from splitlearn.simulation import simulate
from splitlearn.simulation.results import SimulationResult
from splitlearn.spec import JobSpec
from splitlearn.tasks import SiloData, load_tokenizer, prepare_silo_data
from splitlearn.training.speed import measure_speed

_WIDTHS = (64, 256, 512)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FederationRequest(_Document):
    """What is trained.

    Attributes:
        spec: The job.
        model_folder: Its model.
        vocab_size: Of the model.
        threads: Of torch, for each party.
        round_trip_seconds: Between each silo and the worker.
        measures_speed: Whether the process measures its own speed before and after.
        warm_ups: Steps at the begin of every turn that do not count.
    """

    spec: JobSpec
    model_folder: Path
    vocab_size: int
    threads: int = 1
    round_trip_seconds: float = 0.0
    measures_speed: bool = False
    warm_ups: int = 3


class FederationAnswer(_Document):
    """What it came to.

    Attributes:
        step_seconds: Of the trunk's steps that count: from answer to answer, waits and wire included.
        bytes_per_step: Of one silo in one of its steps, both directions; secure sums are in it.
        loss: Of the last step of every silo, in the mean.
        speeds: Before and after, where asked for.
    """

    step_seconds: tuple[float, ...]
    bytes_per_step: float
    loss: float
    speeds: tuple[Speed, ...] = ()

    @property
    def seconds(self) -> float:
        """The median of the steps."""
        return statistics.median(self.step_seconds)


class _Steps:
    """Keeps how long the trunk's steps took, by number."""

    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = {}

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, TrunkStepped):
            self.seconds.setdefault(progress.step, []).append(progress.seconds)


def run(request: FederationRequest) -> FederationAnswer:
    """Train and return what was measured."""
    end_with_parent()
    torch.set_num_threads(request.threads)
    device = torch.device("cpu")
    speeds = [measure_speed(device, widths=_WIDTHS)] if request.measures_speed else []
    steps = _Steps()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
        result = simulate(
            request.spec,
            model_folder=request.model_folder,
            data=make_data(request),
            work_dir=Path(folder),
            on_progress=steps,
            make_lines=partial(DelayedLines, round_trip_seconds=request.round_trip_seconds),
        )
    if request.measures_speed:
        speeds.append(measure_speed(device, widths=_WIDTHS))
    return FederationAnswer(
        step_seconds=tuple(_counted(request, steps.seconds)),
        bytes_per_step=_bytes_per_step(request.spec, result),
        loss=statistics.fmean(silo.steps[-1].loss for silo in result.silos),
        speeds=tuple(speeds),
    )


def make_data(request: FederationRequest) -> list[SiloData]:
    """Return every silo's rows: the same words, of which each holds out and shuffles its own."""
    spec = request.spec
    records = synthetic_records(spec, vocab_size=request.vocab_size)
    tokenizer = load_tokenizer(request.model_folder)
    return [
        prepare_silo_data(
            records,
            silo_name=silo.name,
            task=spec.task,
            tokenizer=tokenizer,
            max_tokens=spec.max_tokens,
            holdout=spec.evaluation.holdout,
            seed=spec.seed,
            vocab_size=request.vocab_size,
        )
        for silo in spec.silos
    ]


def _counted(request: FederationRequest, steps: dict[int, list[float]]) -> Sequence[float]:
    """Return the seconds of each step that counts; of replicas, whose steps have one number, the longest."""
    per_turn = request.spec.steps_per_round
    return [max(seconds) for step, seconds in steps.items() if step % per_turn >= request.warm_ups]


def _bytes_per_step(spec: JobSpec, result: SimulationResult) -> float:
    assert all(silo.steps for silo in result.silos), f"a silo of {spec.name} has done no step"
    return statistics.fmean(silo.wire_bytes / len(silo.steps) for silo in result.silos)


if __name__ == "__main__":
    serve(FederationRequest, run)
