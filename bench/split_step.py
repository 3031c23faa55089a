"""How much slower is a split, sealed training step than the same step of the whole model?

The split run is a job of one silo on the real platform (``--link platform``): control plane, gateway, worker
and agent are processes, the agent's rows come from a file, its frames go through the gateway, its numbers to
the control plane. With ``--link websocket`` silo and worker are two processes of this package that talk over
a loopback websocket, and nothing else runs: the difference is what the platform costs.

The reference is a plain training loop over the whole model in one process: same weights, batches, trainable
tensors, optimiser and loss. Silo, worker and reference have two threads each on the same two cores. Split and
reference take turns; a platform is stopped before the reference begins, and another one started for the next
turn. The ratio is that of the medians.

The split's processes are started as agents and workers are (splitlearn.party_environment): threads that wait
soon sleep, tensors get large pages. The reference keeps torch's defaults: its threads may spin, nobody else
wants the cores. With ``--large-pages`` it gets large pages, too.

A step's seconds on the platform are those that the silo reports (the metric ``seconds``): from the step's
first computation to its last at the silo, the trunk's work and every wait for it included; the trunk's
optimiser step falls into the silo's next one. What lies between the steps (``between``) follows from the
worker's ``turn_seconds`` of the whole round. Over the websocket and in the reference a step lasts from its
start to the start of the next one.

Bytes are sealed frames in both directions per valid token, over the websocket its headers too. CPU seconds
are of all processes of a side, but not of this one, which asks the control plane for numbers now and then.
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
from bench.measuring import LINKS, Effort, Environments, Link, compare
from bench.processes import ChildError
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.party_environment import LARGE_PAGES, party_environment

_NUM_CORES = 2
_INTERRUPTED = 130
_COLUMNS = (
    "dim", "layers", "adapter", "clip", "ratio", "split s", "whole s", "between s",
    "split CPU s", "whole CPU s", "B/token", "over",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    cases = list(select_cases(dims=options.dim, adapters=options.adapter, clips=options.clip))
    effort = Effort(warmup=options.warmup, steps=options.steps, alternations=options.alternations)
    own = dict(os.environ)  # noqa: TID251 - an entry point; the children get it and what a party needs
    environments = Environments(
        split=party_environment(own), reference={**own, **LARGE_PAGES} if options.large_pages else own
    )
    stay_on_cores(_NUM_CORES)
    rows: list[Row] = []
    code = 0
    try:
        asyncio.run(_measure(cases, effort, environments, rows, link=options.link))
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
    parser.add_argument("--link", choices=LINKS, default="platform", help="(default platform)")
    parser.add_argument("--large-pages", action="store_true", help="give the reference large pages, too")
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
    cases: Sequence[Case], effort: Effort, environments: Environments, rows: list[Row], *, link: Link
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for number, case in enumerate(cases, 1):
        clip = "off" if case.clip is None else f"{case.clip:g}"
        say(f"row {number} of {len(cases)}: dim {case.dim} x {case.layers}, {case.adapter}, clip {clip}")
        comparison = await compare(case, effort, environments, link=link)
        rows.append(comparison.row())


def _show(rows: Sequence[Row]) -> None:
    title = f"A split, sealed step ({rows[0]['link']}) against the whole model"
    print_table(title, _COLUMNS, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    def seconds(key: str) -> str:
        return "" if row[key] is None else f"{row[key]:.3f}"

    excess: Any = row["bytes_per_token"] / row["payload_bytes_per_token"] - 1
    return [
        str(row["dim"]),
        str(row["layers"]),
        row["adapter"],
        "off" if row["clip"] is None else f"{row['clip']:g}",
        f"{row['ratio']:.3f}",
        seconds("split_seconds"),
        seconds("centralised_seconds"),
        seconds("split_between_seconds"),
        seconds("split_cpu_seconds"),
        seconds("centralised_cpu_seconds"),
        f"{row['bytes_per_token']:.1f}",
        f"{excess:+.2%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
