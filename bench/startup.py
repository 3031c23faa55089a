"""Where does the time go from the command to the first training step, and what do rounds cost after it?

A small federation is started as ``trunkline demo`` starts one: control plane, gateway, worker and an agent
per silo, each a process; then a job, from its submission to its end. The phases follow each other without a
gap: until the job is submitted this process's clock tells them, from then on the control plane's, which is
that of the same machine. So their sum is the time from the start of this process to the moment at which the
control plane has the numbers of every silo's first step.

Then the rounds. A dispatch (a Celery task for a worker, a lease, trunk and silos' layers loaded) takes as
long as the phases from the job's approval to the first step. A replica needs one for all its rounds:
between two of them the parties only write their checkpoints. The worker measures both, a turn (a round's
steps) and a round from the end of the one before. The first round is left out, it begins with the dispatch;
so is the last, which ends with the evaluation. ``ratio`` is the wall time per step over the borders of rounds
against that within rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.machine import describe_machine
from bench.platform_job import Told, platform_environment, run_to_end
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.errors import TrunklineError
from splitlearn.simulation.demo_inputs import plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.platform.stopwatch import Phase

_INTERRUPTED = 130
_SUBMITTED = "job submitted"
_PHASE_COLUMNS = ("phase", "seconds", "share")
_ROUND_COLUMNS = (
    "rounds", "steps each", "dispatches", "dispatch s", "between rounds s",
    "per step s", "over borders s", "ratio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """When a phase ended: seconds since 1970."""

    phase: str
    ended_at: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    loaded = Mark("Python and libraries loaded", time.time())
    options = parse(arguments)
    begun_at = psutil.Process().create_time()
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
            marks, told = _run(options, Path(folder))
    except KeyboardInterrupt:
        say("interrupted; every process has been ended and the temporary folder deleted")
        return _INTERRUPTED
    except TrunklineError as error:
        say(error.message)
        return error.exit_code
    phases = phases_of(begun_at, [loaded, *marks, *marks_of_job(told)])
    rounds = rounds_row(told)
    _show(phases, rounds)
    if options.json is not None:
        machine = describe_machine(threads=options.threads)
        write_json(options.json, rows=[*phase_rows(phases), rounds], machine=machine)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--silos", type=positive, default=2, help="(default 2)")
    parser.add_argument("--rounds", type=_at_least_three, default=12, help="at least 3 (default 12)")
    parser.add_argument("--steps-per-round", type=positive, default=5, help="(default 5)")
    parser.add_argument("--threads", type=positive, default=1, help="of torch, of each party (default 1)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def marks_of_job(told: Told) -> list[Mark]:
    """Return when the phases of a job ended, from its submission to the end of every silo's first step."""
    queued = next(event.at for event in told.events if event.kind == "job_state" and event.to == "queued")
    granted = next(event.at for event in told.events if event.kind == "lease_granted")
    attached = max(event.at for event in told.events if event.kind == "silo_attached")
    firsts = {number.party: number for number in reversed(told.values("seconds", party="silo:"))}
    last = max(firsts.values(), key=lambda number: number.received_at)
    done_at = last.received_at.timestamp()
    return [
        Mark("silos prepared, job approved by all", queued.timestamp()),
        Mark("worker given the lease", granted.timestamp()),
        Mark("trunk fetched and loaded, silos attached", attached.timestamp()),
        Mark("silos' layers loaded, sealed channels opened", done_at - last.value),
        Mark("first step", done_at),
    ]


def phases_of(begun_at: float, marks: Iterable[Mark]) -> list[Phase]:
    """Return the phases between marks; what ended before the phase that is named first took no time."""
    phases, since = [], begun_at
    for mark in marks:
        until = max(since, mark.ended_at)
        phases.append(Phase(mark.phase, until - since))
        since = until
    return phases


def phase_rows(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Return the phases for JSON, and their sum as the last."""
    whole = sum(phase.seconds for phase in phases)
    return [
        {"phase": phase.name, "seconds": phase.seconds, "share": phase.seconds / whole}
        for phase in (*phases, Phase("all", whole))
    ]


def rounds_row(told: Told) -> dict[str, Any]:
    """Return what the rounds between the first and the last came to, for JSON."""
    spec = told.result.spec
    turns = {number.round: number.value for number in told.values("turn_seconds", party="worker:")}
    wholes = {
        event.round: event.seconds
        for event in told.events
        if event.kind == "round_committed" and event.round is not None and event.seconds is not None
    }
    middle = range(2, spec.rounds)
    num_steps = spec.total_steps // spec.rounds
    within = statistics.median(turns[number] for number in middle) / num_steps
    across = statistics.median(wholes[number] for number in middle) / num_steps
    return {
        "rounds": spec.rounds,
        "steps_per_round": num_steps,
        "dispatches": sum(event.kind == "lease_granted" for event in told.events),
        "dispatch_seconds": _dispatch_seconds(told),
        "border_seconds": statistics.median(wholes[number] - turns[number] for number in middle),
        "step_seconds": within,
        "step_seconds_across_borders": across,
        "ratio": across / within,
    }


def _dispatch_seconds(told: Told) -> float:
    """From all approvals to the first step: what another dispatch between two rounds would add."""
    approved, *between, _ = marks_of_job(told)
    return between[-1].ended_at - approved.ended_at


def _run(options: argparse.Namespace, folder: Path) -> tuple[list[Mark], Told]:
    demo = DemoOptions(
        silos=options.silos,
        rounds=options.rounds,
        steps_per_round=options.steps_per_round,
        threads=options.threads,
        silo_blocks="frozen",
    )
    rows = read_rows(demo, plan_job(demo))
    inputs = prepare_inputs(demo, rows, folder=None, models=folder / "models")
    made_at = time.time()
    say(f"{options.silos} silos, {options.rounds} rounds of {options.steps_per_round} steps ...")
    federation = PlatformFederation(
        inputs.spec,
        model_folder=inputs.model_folder,
        data=inputs.data,
        rows=rows.by_silo,
        work_dir=folder / "run",
        threads=options.threads,
        environment=platform_environment(),
        keeps_running=True,
    )
    told = run_to_end(federation)
    marks = [Mark("model and rows made", made_at)]
    for phase in federation.phases:
        marks.append(Mark(phase.name, marks[-1].ended_at + phase.seconds))
        if phase.name == _SUBMITTED:
            break
    return marks, told


def _at_least_three(text: str) -> int:
    if (number := positive(text)) < 3:  # noqa: PLR2004 - the first and the last are left out
        raise argparse.ArgumentTypeError(f"{text} rounds leave none between the first and the last")
    return number


def _show(phases: Sequence[Phase], rounds: Row) -> None:
    cells = [(row["phase"], f"{row['seconds']:.2f}", f"{row['share']:.1%}") for row in phase_rows(phases)]
    print_table("From the command to the first training step", _PHASE_COLUMNS, cells)
    print_table(
        "Rounds of one replica",
        _ROUND_COLUMNS,
        [
            (
                str(rounds["rounds"]),
                str(rounds["steps_per_round"]),
                str(rounds["dispatches"]),
                f"{rounds['dispatch_seconds']:.2f}",
                f"{rounds['border_seconds']:.3f}",
                f"{rounds['step_seconds']:.3f}",
                f"{rounds['step_seconds_across_borders']:.3f}",
                f"{rounds['ratio']:.3f}",
            )
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
