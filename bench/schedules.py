"""How much faster is training when all silos take a step at once, instead of one after another?

For K silos and several round trips one federation trains serially, another with client-batching: the same
model, rows, optimiser, sealed channel; in one process, over lines that delay every frame by half the round
trip. Steps count from the third one of a turn on, from the trunk's answer to its next answer. The gain is
the ratio of the seconds per sample.

The bound is K (2 RTT + c) / (2 RTT + K c), with c the seconds of a plain training step of the whole model on
one silo's batch, measured in the same run in a process with the same threads. It takes the silos' own parts
for work that one processor does in turn: where there is more than one they overlap, and the bound can be
passed.

``--only hierarchical``: one worker and the silo that is at its turn share a core (serial); beside it, two
such pairs on a core each, whose trunks are averaged at the round's end. Linux alone pins processes to cores.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases import SILO, Case
from bench.documents import Task
from bench.federation_run import FederationAnswer, FederationRequest
from bench.machine import describe_machine
from bench.measuring import run_reference
from bench.model_folder import write_model
from bench.pinned_pairs import measure_pairs
from bench.processes import ChildError, child
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.party_environment import party_environment
from splitlearn.planning.step_time import ideal_gain
from splitlearn.spec import JobSpec, SiloSpec

SMALL = Case(dim=256, layers=6, adapter="full", clip=1.0, vocab_size=1024, batch_size=4, max_tokens=64)
LARGE = Case(dim=512, layers=8, adapter="full", clip=1.0, vocab_size=1024, batch_size=4, max_tokens=64)
_SILOS = (2, 4, 8)
_ROUND_TRIPS_MS = (0, 20, 100)
_WARM_UPS = 2
_GOAL = 0.8
_REFERENCE_WARM_UPS, _REFERENCE_STEPS = 2, 10
_MILLISECONDS = 1000
_SAMPLES = 1000
_COLUMNS = (
    "dim x layers", "silos", "RTT ms", "c s", "serial s/1000", "batching s/1000", "gain", "bound", "of it",
)  # fmt: skip
_PAIR_COLUMNS = ("dim x layers", "one pair s/1000", "two pairs s/1000", "average s", "gain")
Only = ("batching", "hierarchical")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    environment = party_environment(
        {**os.environ, "OMP_NUM_THREADS": str(options.threads)}  # noqa: TID251 - an entry point
    )
    rows: list[Row] = []
    code = 0
    try:
        asyncio.run(_measure(options, environment, rows))
    except ChildError as error:
        say(str(error))
        code = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; every process has been ended and the temporary folder deleted")
        code = 130
    _show(rows)
    if options.json is not None and not code:
        write_json(options.json, rows=rows, machine=describe_machine(threads=options.threads))
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.schedules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--silos", type=positive, action="append", help="(default 2, 4 and 8)")
    parser.add_argument("--round-trip-ms", type=int, action="append", help="(default 0, 20 and 100)")
    parser.add_argument(
        "--dim", type=int, choices=(SMALL.dim, LARGE.dim), action="append", help="hidden size"
    )
    parser.add_argument("--steps", type=positive, default=3, help="measured steps of each silo (default 3)")
    parser.add_argument("--repeats", type=positive, default=1, help="runs of each row, in turn (default 1)")
    parser.add_argument("--threads", type=positive, default=1, help="of torch, for each party (default 1)")
    parser.add_argument("--only", choices=Only, help="one of the two tables")
    parser.add_argument("--quick", action="store_true", help="8 silos at 100 ms of dim 256 alone")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    options = parser.parse_args(arguments)
    if options.quick:
        options.silos, options.round_trip_ms, options.dim = [8], [100], [SMALL.dim]
    return options


def cells(options: argparse.Namespace) -> list[tuple[Case, int, int]]:
    """Return which rows are measured: model, silos, round trip in milliseconds.

    The larger model is measured at the largest number of silos and the longest round trip alone, unless
    asked for.
    """
    silos, trips = options.silos or list(_SILOS), options.round_trip_ms or list(_ROUND_TRIPS_MS)
    dims = options.dim or [SMALL.dim]
    found = [
        (case, number, trip)
        for case in (SMALL, LARGE)
        if case.dim in dims
        for number in silos
        for trip in trips
    ]
    return found if options.dim else [*found, (LARGE, max(silos), max(trips))]


async def _measure(options: argparse.Namespace, environment: Mapping[str, str], rows: list[Row]) -> None:
    if options.only != "hierarchical":
        for number, cell in enumerate(cells(options), 1):
            rows.append(await _row(*cell, options, environment))
            say(f"row {number} of {len(cells(options))}: {_sentence(rows[-1])}")
    if options.only != "batching":
        rows.append(await measure_pairs(environment, repeats=options.repeats, threads=options.threads))


async def _row(
    case: Case,
    num_silos: int,
    round_trip_ms: int,
    options: argparse.Namespace,
    environment: Mapping[str, str],
) -> Row:
    """Measure whole model, serial and client-batching in turn, as often as asked for."""
    wholes: list[float] = []
    runs: dict[str, list[FederationAnswer]] = {"serial": [], "client-batching": []}
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as work:
        folder = Path(work, "model")
        write_model(case, folder)
        for _ in range(options.repeats):
            wholes.append(await _whole_seconds(case, folder, options.threads, environment))
            for schedule, answers in runs.items():
                request = FederationRequest(
                    spec=federation_spec(
                        case, folder, schedule=schedule, num_silos=num_silos, steps=options.steps + _WARM_UPS
                    ),
                    model_folder=folder,
                    vocab_size=case.vocab_size,
                    threads=options.threads,
                    round_trip_seconds=round_trip_ms / _MILLISECONDS,
                    warm_ups=_WARM_UPS,
                )
                answers.append(await run_federation(request, environment))
    return _told(case, num_silos, round_trip_ms, wholes, runs)


def _told(
    case: Case,
    num_silos: int,
    round_trip_ms: int,
    wholes: Sequence[float],
    runs: Mapping[str, Sequence[FederationAnswer]],
) -> Row:
    serial, batching = (
        statistics.median(answer.seconds for answer in runs[schedule])
        for schedule in ("serial", "client-batching")
    )
    whole = statistics.median(wholes)
    gain = num_silos * serial / batching
    bound = ideal_gain(num_silos, round_trip_seconds=round_trip_ms / _MILLISECONDS, batch_seconds=whole)
    return {
        "kind": "client-batching",
        "dim": case.dim,
        "layers": case.layers,
        "silos": num_silos,
        "round_trip_ms": round_trip_ms,
        "whole_seconds": whole,
        "serial_seconds_per_1000": serial / case.batch_size * _SAMPLES,
        "batching_seconds_per_1000": batching / (num_silos * case.batch_size) * _SAMPLES,
        "ratio": gain,
        "bound": bound,
        "of_bound": gain / bound,
        "whole_runs_seconds": list(wholes),
        "serial_runs_seconds": [answer.seconds for answer in runs["serial"]],
        "batching_runs_seconds": [answer.seconds for answer in runs["client-batching"]],
    }


def federation_spec(
    case: Case, folder: Path, *, schedule: str, num_silos: int, steps: int, **fields: object
) -> JobSpec:
    """Return the job of K silos that train everything, for one round of so many steps of each.

    Args:
        case: The model and the batch.
        folder: Where the model lies.
        schedule: Of the silos.
        num_silos: K.
        steps: Of each silo.
        fields: Of the specification, instead of the case's.
    """
    single = case.spec(model_folder=folder, num_steps=steps)
    silos = [SiloSpec(name=f"{SILO}-{number}", dataset="synthetic") for number in range(1, num_silos + 1)]
    changed = {**single.model_dump(mode="json"), "silos": silos, "schedule": schedule, **fields}
    return JobSpec.parse(changed)


async def run_federation(request: FederationRequest, environment: Mapping[str, str]) -> FederationAnswer:
    """Train a federation in a process of its own.

    Raises:
        ChildError: It failed.
    """
    async with child("bench.federation_run", request, environment=environment) as running:
        answer = await running.receive(FederationAnswer)
        await running.finished()
    return answer


async def _whole_seconds(case: Case, folder: Path, threads: int, environment: Mapping[str, str]) -> float:
    """Return c: the seconds of a plain training step of the whole model on one silo's batch."""
    task = Task(
        spec=case.spec(model_folder=folder, num_steps=_REFERENCE_WARM_UPS + _REFERENCE_STEPS + 1),
        model_folder=folder,
        vocab_size=case.vocab_size,
        threads=threads,
        warmup=_REFERENCE_WARM_UPS,
        steps=_REFERENCE_STEPS,
    )
    return statistics.median((await run_reference(task, environment)).step_seconds)


def _sentence(row: Row) -> str:
    return (
        f"dim {row['dim']} x {row['layers']}, {row['silos']} silos, {row['round_trip_ms']} ms: "
        f"{row['ratio']:.2f} times as fast as serial, {row['of_bound']:.0%} of the bound {row['bound']:.2f}"
    )


def _show(rows: Sequence[Row]) -> None:
    batching = [row for row in rows if row["kind"] == "client-batching"]
    if batching:
        title = (
            f"All silos at once against one after another; goal at 8 silos, 100 ms: {_GOAL:.0%} of the bound"
        )
        print_table(title, _COLUMNS, [_cells(row) for row in batching])
    pairs = [row for row in rows if row["kind"] == "hierarchical"]
    if pairs:
        print_table(
            "Two pairs of worker and silo, a core each, against one", _PAIR_COLUMNS, map(_pair_cells, pairs)
        )


def _cells(row: Row) -> list[str]:
    return [
        f"{row['dim']} x {row['layers']}",
        str(row["silos"]),
        str(row["round_trip_ms"]),
        f"{row['whole_seconds']:.3f}",
        f"{row['serial_seconds_per_1000']:.1f}",
        f"{row['batching_seconds_per_1000']:.1f}",
        f"{row['ratio']:.2f}",
        f"{row['bound']:.2f}",
        f"{row['of_bound']:.0%}",
    ]


def _pair_cells(row: Row) -> list[str]:
    return [
        f"{row['dim']} x {row['layers']}",
        f"{row['one_pair_seconds_per_1000']:.1f}",
        f"{row['two_pairs_seconds_per_1000']:.1f}",
        f"{row['average_seconds']:.3f}",
        f"{row['ratio']:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
