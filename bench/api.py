"""How fast does the control plane answer with many jobs, silos and numbers? And does it read whole tables?

A PostgreSQL server of the benchmark's own is filled, and one real API process is started on it. First one
caller asks a mix of what people, scripts and agents ask, then many at once: each asks again as soon as it is
answered, so what is measured is also how long requests wait for each other. Callers, API and PostgreSQL share
this machine's cores; the CPU time of each is told.

Then the same is asked of an API process that writes down its statements, beside every other route; PostgreSQL
says for each how it would answer it. One that reads a table of many rows from end to end is an error, unless
it has to, and then the table says why.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from backend.settings import Settings
from bench.api_fill import Filled, Size, fill, new_secret
from bench.api_load import Callers, mix
from bench.api_plans import Plans, read_plans
from bench.api_process import KEPT_FOR_EVER, api_process, cpu_seconds, make_settings
from bench.machine import describe_machine
from bench.stage.servers import OwnServer, ServerAbsentError, own_postgresql
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.errors import TrunklineError

_INTERRUPTED = 130
_WARMUP_SECONDS = 3.0
_RECORDED_SECONDS = 10.0
_COLUMNS = ("asked", "share", "alone: median", "99th, ms", "all: median", "99th, ms")
_PERCENT = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code: 1 if a statement reads a table that it need not."""
    options = parse(arguments)
    try:
        rows, load, plans = measure(options)
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    except (TrunklineError, ServerAbsentError) as error:
        say(f"error: {error}")
        return 1
    _show(rows, load, plans, options)
    if options.json is not None:
        write_json(options.json, rows=[*rows, load, *_scan_rows(plans)], machine=describe_machine(threads=1))
    return int(any(scan.reason is None for scan in plans.scans))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.api",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=positive, default=10_000, help="in the database (default 10000)")
    parser.add_argument("--silos", type=positive, default=1000, help="in the database (default 1000)")
    parser.add_argument("--metric-rows", type=positive, default=10_000_000, help="numbers (default 10000000)")
    parser.add_argument("--callers", type=positive, default=50, help="who ask at once (default 50)")
    parser.add_argument("--seconds", type=positive, default=30, help="of each measurement (default 30)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> tuple[list[Row], Row, Plans]:
    """Return a row for each question, one for all together, and what the statements read.

    Raises:
        ServerAbsentError: PostgreSQL's programs are not on this machine.
        ProcessError: A process did not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-bench-")))
        database = stack.enter_context(own_postgresql())
        settings = make_settings(folder, database.url)
        size = Size(options.jobs, options.silos, options.metric_rows)
        say("the database is filled ...")
        filled = fill(settings, size, secret=new_secret())
        say(f"1 caller, then {options.callers}, for {options.seconds} s each ...")
        with api_process(settings, folder, environment=KEPT_FOR_EVER) as api:
            alone, _ = asyncio.run(_load(settings.audience, filled, options, number=1))
            before = _cpu(api.pid, database)
            seconds, length = asyncio.run(_load(settings.audience, filled, options, number=options.callers))
            spent = {name: value - before[name] for name, value in _cpu(api.pid, database).items()}
        say("the same once more, statements written down ...")
        plans = look(settings, folder, filled)
    whole = length + _WARMUP_SECONDS
    return _rows(alone, seconds), _load_row(options, seconds, length, spent, whole), plans


def look(
    settings: Settings,
    folder: Path,
    filled: Filled,
    *,
    seconds: float = _RECORDED_SECONDS,
) -> Plans:
    """Return what the statements of every route read.

    Args:
        settings: The control plane's.
        folder: For its log, and what it writes down.
        filled: What the database holds.
        seconds: So long the mix is asked.
    """
    path = folder / "plans.json"
    words = ("-m", "bench.api_recording", str(path))
    with api_process(settings, folder, words=words):
        asyncio.run(_record(settings.audience, filled, seconds=seconds))
    return read_plans(path)


async def _load(
    url: str, filled: Filled, options: argparse.Namespace, *, number: int
) -> tuple[Mapping[str, list[float]], float]:
    async with Callers(url, number=number) as callers:
        world = await callers.sign_in(filled)
        length = await callers.run(world, seconds=options.seconds, warmup_seconds=_WARMUP_SECONDS)
        return callers.seconds, length


async def _record(url: str, filled: Filled, *, seconds: float) -> None:
    async with Callers(url, number=4) as callers:
        world = await callers.sign_in(filled)
        await callers.run(world, seconds=seconds)
        await callers.try_everything(world)
        await callers.scrape(url)


def _cpu(api: int, database: OwnServer) -> dict[str, float]:
    return {
        "api": cpu_seconds(api),
        "postgresql": cpu_seconds(database.pid),
        "callers": sum(os.times()[:2]),
    }


def _rows(alone: Mapping[str, list[float]], seconds: Mapping[str, list[float]]) -> list[Row]:
    weights = {name: weight for name, (weight, _) in mix().items()}
    return [
        {
            "asked": name,
            "share": weight / sum(weights.values()),
            "alone_median_seconds": _percentile(alone.get(name, []), 50),
            "alone_99th_seconds": _percentile(alone.get(name, []), 99),
            "median_seconds": _percentile(seconds.get(name, []), 50),
            "99th_seconds": _percentile(seconds.get(name, []), 99),
            "answers": len(seconds.get(name, [])),
        }
        for name, weight in weights.items()
    ]


def _load_row(
    options: argparse.Namespace,
    seconds: Mapping[str, list[float]],
    length: float,
    spent: Mapping[str, float],
    whole: float,
) -> Row:
    everything = [value for values in seconds.values() for value in values]
    return {
        "callers": options.callers,
        "jobs": options.jobs,
        "silos": options.silos,
        "metric_rows": options.metric_rows,
        "answers_per_second": len(everything) / length,
        "median_seconds": _percentile(everything, 50),
        "99th_seconds": _percentile(everything, 99),
        **{f"{name}_cores": value / whole for name, value in spent.items()},
    }


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:  # noqa: PLR2004 - of one value there is no median
        return values[0] if values else None
    return statistics.quantiles(values, n=_PERCENT, method="inclusive")[percent - 1]


def _scan_rows(plans: Plans) -> list[Row]:
    return [
        {"statement": scan.statement, "table": scan.table, "node": scan.node, "reason": scan.reason}
        for scan in plans.scans
    ]


def _show(rows: Sequence[Row], load: Row, plans: Plans, options: argparse.Namespace) -> None:
    print_table(
        f"{options.jobs:,} jobs, {options.silos:,} silos, {options.metric_rows:,} numbers: "
        f"one caller alone, and {options.callers} at once",
        _COLUMNS,
        [
            (
                row["asked"],
                f"{row['share']:.0%}",
                *(
                    _milliseconds(row[name])
                    for name in (
                        "alone_median_seconds", "alone_99th_seconds", "median_seconds", "99th_seconds",
                    )
                ),
            )
            for row in rows
        ],
    )  # fmt: skip
    names = ("answers_per_second", "api_cores", "postgresql_cores", "callers_cores")
    print_table(
        "All together",
        ("callers", "answers/s", "median ms", "99th ms", "cores: API", "PostgreSQL", "callers"),
        [
            (
                str(load["callers"]),
                f"{load[names[0]]:.0f}",
                _milliseconds(load["median_seconds"]),
                _milliseconds(load["99th_seconds"]),
                *(f"{load[name]:.2f}" for name in names[1:]),
            )
        ],
    )
    print_table(
        f"Statements that read a large table from end to end, of {plans.statements}",
        ("table", "rows", "how", "why that is right", "statement"),
        [
            (scan.table, f"{scan.rows:,}", scan.node, scan.reason or "IT IS NOT", scan.statement[:200])
            for scan in plans.scans
        ],
    )


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1000 * seconds:.1f}"


if __name__ == "__main__":
    sys.exit(main())
