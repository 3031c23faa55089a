"""How much slower is a split, sealed training step than the same step of the whole model?

Silo and worker are two processes that talk over a websocket on the loopback interface, through the real
parties, protocol, sealed channel and bf16 codec. The reference is a plain training loop over the whole
model in one process: same weights, batches, trainable tensors, optimiser and loss. All have two threads on
the same two cores. Split and reference take turns, and the ratio is that of the medians.

The split's processes are started as agents and workers should be (splitlearn.party_environment): threads
that wait soon sleep. The reference keeps torch's defaults: its threads may spin, nobody else wants the cores.

A step lasts from its start to the start of the next one, seen at the silo. Bytes are those of the silo's
socket, websocket headers included, in both directions, per valid token. CPU seconds are of all processes.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from bench.cases import ADAPTERS, LAYERS_OF_DIM, Case, select_cases
from bench.machine import describe_machine, stay_on_cores
from bench.measuring import Effort, Environments, compare
from bench.processes import ChildError
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.party_environment import party_environment

_NUM_CORES = 2
_INTERRUPTED = 130
_COLUMNS = (
    "dim", "layers", "adapter", "clip", "ratio", "split s", "reference s",
    "split CPU s", "reference CPU s", "bytes/token", "over payload",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    cases = list(select_cases(dims=options.dim, adapters=options.adapter, clips=options.clip))
    effort = Effort(warmup=options.warmup, steps=options.steps, alternations=options.alternations)
    own = dict(os.environ)  # noqa: TID251 - an entry point; the children get it and what a party needs
    environments = Environments(split=party_environment(own), reference=own)
    stay_on_cores(_NUM_CORES)
    rows: list[Row] = []
    code = 0
    try:
        asyncio.run(_measure(cases, effort, environments, rows))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; every process has been ended and the temporary folder deleted")
        code = _INTERRUPTED
    except ChildError as error:
        say(str(error))
        code = 1
    if rows:
        _show(rows)
    if options.json is not None and not code:
        machine = describe_machine(threads=effort.threads, environments=environments.waiting)
        write_json(options.json, rows=rows, machine=machine)
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.split_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dim", type=int, choices=sorted(LAYERS_OF_DIM), action="append", help="hidden size")
    parser.add_argument("--adapter", choices=ADAPTERS, action="append", help="what is trained")
    parser.add_argument("--clip", type=_clip, action="append", metavar="{off,1.0}", help="gradient clipping")
    parser.add_argument("--steps", type=positive, default=20, help="measured steps of a run (default 20)")
    parser.add_argument("--warmup", type=positive, default=5, help="steps before them (default 5)")
    parser.add_argument("--alternations", type=positive, default=3, help="runs of each side (default 3)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    options = parser.parse_args(arguments)
    options.dim, options.adapter, options.clip = options.dim or [], options.adapter or [], options.clip or []
    return options


def _clip(text: str) -> float | None:
    if text == "off":
        return None
    if text in {"1", "1.0"}:
        return 1.0
    raise argparse.ArgumentTypeError(f"{text!r} is neither off nor 1.0")


async def _measure(
    cases: Sequence[Case], effort: Effort, environments: Environments, rows: list[Row]
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for number, case in enumerate(cases, 1):
        clip = "off" if case.clip is None else f"{case.clip:g}"
        say(f"row {number} of {len(cases)}: dim {case.dim} x {case.layers}, {case.adapter}, clip {clip}")
        comparison = await compare(case, effort, environments)
        rows.append(comparison.row())


def _show(rows: Sequence[Row]) -> None:
    print_table("A split, sealed step against the whole model", _COLUMNS, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    def seconds(key: str) -> str:
        return f"{row[key]:.3f}"

    excess: Any = row["bytes_per_token"] / row["payload_bytes_per_token"] - 1
    return [
        str(row["dim"]),
        str(row["layers"]),
        row["adapter"],
        "off" if row["clip"] is None else f"{row['clip']:g}",
        f"{row['ratio']:.3f}",
        seconds("split_seconds"),
        seconds("centralised_seconds"),
        seconds("split_cpu_seconds"),
        seconds("centralised_cpu_seconds"),
        f"{row['bytes_per_token']:.1f}",
        f"{excess:+.2%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
