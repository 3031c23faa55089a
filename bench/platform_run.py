"""Child process: one split run on a platform that is started for it, and stopped with it."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from bench.cases import SILO, synthetic_records
from bench.child import end_with_parent, serve
from bench.documents import Measured, Task
from bench.platform_job import Told, platform_environment, run_to_end
from splitlearn.parties import Progress, StepDone
from splitlearn.simulation.platform.federation import PlatformFederation

_LOOK_SECONDS = 4.0  # each look costs the control plane some milliseconds of the cores that are measured
_SHORTEST_SECONDS = 8.0
"""Over less than this, CPU time that the system counts in hundredths of a second says little."""


class CpuRate:
    """CPU seconds per second of all processes that this one has started, while the measured steps go on.

    Args:
        task: Which steps are measured.
        clock: Wall time in seconds.
        spent: CPU seconds so far.
    """

    def __init__(
        self,
        task: Task,
        *,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] | None = None,
    ) -> None:
        self._clock, self._spent = clock, spent or _cpu_seconds_of_children
        self._measured = range(task.warmup, task.warmup + task.steps)
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None

    def __call__(self, progress: Progress) -> None:
        """Look at the clocks when a measured step is told of; several are told at once."""
        if not isinstance(progress, StepDone) or progress.step not in self._measured:
            return
        now = self._clock()
        if self._last is None or now - self._last[0] >= _LOOK_SECONDS:
            self._last = now, self._spent()
            self._first = self._first or self._last

    @property
    def value(self) -> float | None:
        """The rate; None where the steps took too short a time to tell."""
        if self._first is None or self._last is None:
            return None
        seconds = self._last[0] - self._first[0]
        return (self._last[1] - self._first[1]) / seconds if seconds >= _SHORTEST_SECONDS else None


def run(task: Task) -> Measured:
    """Run the job on a platform, and return what its parties reported."""
    end_with_parent()
    rate = CpuRate(task)
    # Beside the model: deleted with it, even if this process is killed.
    with tempfile.TemporaryDirectory(
        dir=task.model_folder.parents[1], prefix="run-", ignore_cleanup_errors=True
    ) as folder:
        federation = PlatformFederation(
            task.spec,
            model_folder=task.model_folder,
            data=[task.data()],
            rows={SILO: synthetic_records(task.spec, vocab_size=task.vocab_size)},
            work_dir=Path(folder),
            threads=task.threads,
            environment=platform_environment(),
            keeps_running=True,
            look_seconds=_LOOK_SECONDS,
            on_progress=rate,
        )
        return measured(task, run_to_end(federation), cpu_rate=rate.value)


def measured(task: Task, told: Told, *, cpu_rate: float | None) -> Measured:
    """Return what the silo and the worker reported of a job of one silo and one round."""
    [silo] = told.result.silos
    [turn] = told.values("turn_seconds", party="worker:")
    seconds = [step.seconds for step in silo.steps]
    num_steps = len(seconds)
    assert num_steps == task.spec.total_steps, f"{num_steps} steps of {task.spec.total_steps} are known"
    counted = seconds[task.warmup : task.warmup + task.steps]
    return Measured(
        step_seconds=tuple(counted),
        cpu_seconds=None if cpu_rate is None else cpu_rate * _mean(counted),
        bytes_per_step=silo.wire_bytes / num_steps,
        losses=tuple(step.loss for step in silo.steps),
        between_seconds=(turn.value - sum(seconds)) / num_steps,
    )


def _cpu_seconds_of_children() -> float:
    total = 0.0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has ended
        total += times.user + times.system
    return total


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    serve(Task, run)
