"""Pairs of worker and silo, each on a core of its own, against one pair: what replicas of the trunk gain.

Each pair is two processes that talk over a loopback websocket, sealed, both pinned to one core: while one of
them computes the other waits. One pair is the serial schedule, in which one silo is active at a time. Two
pairs are two replicas, with as many silos; what averaging their trunks takes, measured apart, is spread over
a round's steps.
"""

import asyncio
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.average_run import AverageAnswer
from bench.cases import Case
from bench.documents import Measured, Task
from bench.measuring import run_split
from bench.model_folder import write_model
from bench.processes import child
from bench.tables import Row, say

DEEP = Case(dim=256, layers=12, adapter="full", clip=1.0, vocab_size=1024, batch_size=4, max_tokens=64)
_WARM_UPS, _STEPS = 3, 20
_SAMPLES = 1000
_PAIRS = 2


async def measure_pairs(environment: Mapping[str, str], *, repeats: int, threads: int) -> Row:
    """Measure one pair and two pairs in turn, and the average of two trunks.

    Args:
        environment: Of the processes.
        repeats: How often.
        threads: Of torch, for each process.

    Raises:
        ChildError: A process failed.
    """
    cores = sorted(os.sched_getaffinity(0))
    one: list[float] = []
    two: list[float] = []
    averages: list[float] = []
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as work:
        folder = Path(work, "model")
        write_model(DEEP, folder)
        tasks = [_task(folder, core=core, threads=threads) for core in cores[:_PAIRS]]
        for number in range(1, repeats + 1):
            one.append(step_seconds([await run_split(tasks[0], environment, link="websocket")]))
            both = await asyncio.gather(*(run_split(task, environment, link="websocket") for task in tasks))
            two.append(step_seconds(both))
            averages.append(await _average_seconds(tasks[0], environment))
            say(f"pairs, run {number} of {repeats}: a step of one {one[-1]:.3f} s, of two {two[-1]:.3f} s")
    return _told(statistics.median(one), statistics.median(two), statistics.median(averages), one, two)


def _told(one: float, two: float, average: float, ones: Sequence[float], twos: Sequence[float]) -> Row:
    per_sample_of_one = one / DEEP.batch_size
    per_sample_of_two = (two + average / _STEPS) / (_PAIRS * DEEP.batch_size)
    return {
        "kind": "hierarchical",
        "dim": DEEP.dim,
        "layers": DEEP.layers,
        "steps_per_round": _STEPS,
        "one_pair_seconds_per_1000": per_sample_of_one * _SAMPLES,
        "two_pairs_seconds_per_1000": per_sample_of_two * _SAMPLES,
        "average_seconds": average,
        "ratio": per_sample_of_one / per_sample_of_two,
        "one_pair_runs_seconds": list(ones),
        "two_pairs_runs_seconds": list(twos),
    }


def step_seconds(pairs: Sequence[Measured]) -> float:
    """Return the seconds of a step of all pairs: replicas meet at a round's end, so the slower one counts."""
    return max(statistics.median(pair.step_seconds) for pair in pairs)


async def _average_seconds(task: Task, environment: Mapping[str, str]) -> float:
    async with child("bench.average_run", task, environment=environment) as averaging:
        answer = await averaging.receive(AverageAnswer)
        await averaging.finished()
    return answer.seconds


def _task(folder: Path, *, core: int, threads: int) -> Task:
    return Task(
        spec=DEEP.spec(model_folder=folder, num_steps=_WARM_UPS + _STEPS + 1),
        model_folder=folder,
        vocab_size=DEEP.vocab_size,
        threads=threads,
        warmup=_WARM_UPS,
        steps=_STEPS,
        core=core,
    )
