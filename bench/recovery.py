"""How soon training goes on after ``kill -9`` of a part, one part at a time, each in a job of its own.

A whole platform with its own PostgreSQL and Redis (``bench.stage``), two silos, a tiny model, fp32. In the
middle of a round one part is killed and started again at once. Measured are

- *start*: from the start to the line that the part writes when its imports are done, or to a server's first
  answer. It is the machine's, and the part's libraries'; a job's process is forked, and imports nothing
- *at work*: from there (job's process: from the kill) to the end of the next training step of the trunk
- *commit*: from there to the next round that the control plane commits
- *again*: steps that were trained twice, in rounds
- *same*: the job's result and losses are bit for bit those of a job that was let alone
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.stage import (
    Finished,
    ServerAbsentError,
    Stage,
    StageInputs,
    make_inputs,
    own_postgresql,
    own_redis,
)
from bench.tables import json_path, positive, print_table, say, write_json
from splitlearn.errors import TrunklineError

PARTS = ("api", "gateway", "worker", "child", "supervisor", "broker", "database")
_WORKER = "worker-1"
_MARKS = {
    "api": "control plane: ",
    "gateway": '"event": "gateway_starting"',
    "worker": "worker_starting",
    "supervisor": "has loaded: jobs' processes begin at once",
}
"""By part, what it writes when its imports are done."""
_COLUMNS = ("part", "killed in", "start s", "at work s", "commit s", "again, rounds", "same")
_ABSENT, _INTERRUPTED = 2, 130
_ROUNDS, _STEPS_PER_ROUND, _KILL_AFTER_STEPS = 5, 20, 29


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill.

    Attributes:
        part: What was killed.
        step: Steps of the job before it.
        start_seconds: From start to the end of its imports; 0 where nothing is imported.
        work_seconds: From there to the end of the next training step.
        commit_seconds: From there to the next committed round.
        rounds_again: Steps trained twice, in rounds.
        is_same: The result is an undisturbed job's.
    """

    part: str
    step: int
    start_seconds: float
    work_seconds: float
    commit_seconds: float
    rounds_again: float
    is_same: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
            found = _run(options, Path(folder))
    except KeyboardInterrupt:
        say("interrupted; every process has been ended and the temporary folder deleted")
        return _INTERRUPTED
    except ServerAbsentError as error:
        say(str(error))
        return _ABSENT
    except TrunklineError as error:
        say(error.message)
        return error.exit_code
    _show(found)
    if options.json is not None:
        write_json(options.json, rows=[asdict(row) for row in found], machine=describe_machine(threads=1))
    return 0 if all(row.is_same for row in found) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; may be given again")
    parser.add_argument("--repeats", type=positive, default=1, help="kills of each part (default 1)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def name_on(stage: Stage, part: str) -> str:
    """Return a part's name on the stage."""
    silo = stage.silos[0]
    return {"worker": _WORKER, "child": f"child-{silo}", "supervisor": f"agent-{silo}"}.get(part, part)


def _run(options: argparse.Namespace, folder: Path) -> list[Recovery]:
    inputs = make_inputs(folder, rounds=_ROUNDS, steps_per_round=_STEPS_PER_ROUND)
    with own_postgresql() as database, own_redis() as broker:
        stage = Stage(folder / "stage", inputs, database=database, broker=broker)
        say("starting PostgreSQL, Redis, API, gateway, worker and two agents ...")
        with stage.running():
            undisturbed = stage.finish(stage.submit(inputs.job()))
            found = []
            for part in options.part or PARTS:
                for _ in range(options.repeats):
                    found.append(recover(stage, inputs, part, undisturbed))
                    say(f"{part}: at work again after {found[-1].work_seconds:.2f} s")
            return found


def recover(stage: Stage, inputs: StageInputs, part: str, undisturbed: Finished) -> Recovery:
    """Run a job, kill a part in the middle of its second round, and see how it goes on."""
    before = stage.steps_done()
    job = stage.submit(inputs.job())
    step = stage.wait_for_steps(_KILL_AFTER_STEPS, since=before) - before
    rounds = _commits(stage, job)
    start_seconds, from_then = kill_and_start(stage, part)
    trained = stage.steps_done()
    stage.wait_for_steps(1, since=trained)
    work_seconds = time.monotonic() - from_then
    stage.wait(lambda: _commits(stage, job) > rounds, what="the next commit")
    commit_seconds = time.monotonic() - from_then
    is_same = stage.finish(job) == undisturbed
    again = (stage.steps_done() - before - inputs.spec.total_steps) / _STEPS_PER_ROUND
    return Recovery(part, step, start_seconds, work_seconds, commit_seconds, again, is_same)


def kill_and_start(stage: Stage, part: str) -> tuple[float, float]:
    """Kill a part and start it again; return how long its start took, and the moment when it was loaded."""
    name = name_on(stage, part)
    said = "" if part == "child" else stage.log_of(name)
    stage.kill(name)
    began = time.monotonic()
    if part == "child":
        return 0.0, began
    stage.start(name, waits=False)
    if (mark := _MARKS.get(part)) is not None:
        _await(lambda: mark in stage.log_of(name)[len(said) :])
    loaded = time.monotonic()
    return loaded - began, loaded


def _await(is_true: Callable[[], bool], *, timeout_seconds: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)


def _commits(stage: Stage, job: str) -> int:
    return len(stage.events(job, "round_committed"))


def _show(found: Sequence[Recovery]) -> None:
    print_table("kill -9 of one part in the middle of a round", _COLUMNS, map(_cells, found))
    slowest = max(found, key=lambda row: row.work_seconds)
    print_table(
        "The slowest",
        ("part", "at work s", "most rounds again"),
        [(slowest.part, f"{slowest.work_seconds:.2f}", f"{max(row.rounds_again for row in found):.2f}")],
    )


def _cells(row: Recovery) -> tuple[str, ...]:
    numbers: tuple[Any, ...] = (row.start_seconds, row.work_seconds, row.commit_seconds, row.rounds_again)
    return (
        row.part,
        f"step {row.step} of {_ROUNDS * _STEPS_PER_ROUND}",
        *(f"{number:.2f}" for number in numbers),
        "yes" if row.is_same else "NO",
    )


if __name__ == "__main__":
    sys.exit(main())
