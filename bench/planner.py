"""Does a job take what ``trunkline jobs plan`` says? Seconds and bytes of a step, and memory of each role.

Each row trains one shape under one schedule, in one process whose parties share its cores, and asks the
planner (splitlearn.planning) for the same. The process measures its own speed before and after it trains,
and the planner gets the mean: what else the machine does, both meet. The rows ``platform`` are jobs of a real
platform on this machine, planned by its control plane from what a job before told of its parties. It takes
every party for one with a core of its own, so no more of them compute at once than there are cores. Memory
is measured role by role in processes of their own, as in bench.party_memory.

``of it``: what was predicted as a share of what was measured; the target is 0.75 to 1.25.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cases import Adapter, Case
from bench.federation_run import FederationAnswer, FederationRequest
from bench.machine import describe_machine, usable_cores
from bench.model_folder import write_model
from bench.party_memory import PARTIES
from bench.party_memory import measure as measure_memory
from bench.planned_run import PlannedAnswer, PlannedRequest
from bench.processes import ChildError, child
from bench.schedules import federation_spec, run_federation
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.party_environment import party_environment
from splitlearn.planning import (
    Cores,
    Line,
    ModelFolder,
    Prediction,
    Rate,
    SiloPlace,
    Speed,
    Surroundings,
    predict,
)
from splitlearn.spec import JobSpec

WARM_UPS = 3
_MIB = 1 << 20
_MILLISECONDS = 1000
_COLUMNS = (
    "dim x layers", "adapter", "schedule", "blocks", "silos", "rows", "RTT ms", "where",
    "step s", "planned", "of it", "bytes/step", "planned", "of it",
)  # fmt: skip
_MEMORY_COLUMNS = ("role", "dim x layers", "adapter", "measured MiB", "planned MiB", "of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One row: what is trained, and how; on a platform perhaps with rows from ``min_tokens`` on."""

    case: Case
    schedule: str
    num_silos: int
    silo_blocks: str = "local"
    round_trip_ms: int = 0
    replicas: int = 1
    on_platform: bool = False
    min_tokens: int | None = None

    @property
    def fields(self) -> dict[str, object]:
        """What the specification has besides."""
        more: dict[str, object] = {"silo_blocks": self.silo_blocks}
        return {**more, "replicas": self.replicas} if self.replicas > 1 else more


def _case(dim: int, layers: int, adapter: Adapter = "full", **sizes: int) -> Case:
    fitted = {"vocab_size": 1024, "batch_size": 4, "max_tokens": 64, **sizes}
    return Case(dim=dim, layers=layers, adapter=adapter, clip=1.0, **fitted)


SHAPES = (
    Shape(case=_case(128, 4), schedule="serial", num_silos=2),
    Shape(case=_case(256, 6), schedule="serial", num_silos=2),
    Shape(case=_case(256, 6), schedule="client-batching", num_silos=4),
    Shape(case=_case(256, 6), schedule="client-batching", num_silos=4, round_trip_ms=100),
    Shape(case=_case(256, 6), schedule="client-batching", num_silos=3, silo_blocks="averaged"),
    Shape(case=_case(256, 6), schedule="client-batching", num_silos=4, silo_blocks="frozen"),
    Shape(case=_case(256, 6, "lora"), schedule="client-batching", num_silos=2),
    Shape(case=_case(512, 8), schedule="serial", num_silos=1),
    Shape(case=_case(512, 4, "lora", vocab_size=4096), schedule="client-batching", num_silos=4),
    Shape(case=_case(256, 6), schedule="hierarchical", num_silos=4, replicas=2),
    Shape(case=_case(256, 6), schedule="serial", num_silos=1, on_platform=True),
    Shape(case=_case(256, 6), schedule="client-batching", num_silos=2, on_platform=True),
    Shape(case=_case(512, 8), schedule="serial", num_silos=2, on_platform=True),
    Shape(
        case=_case(256, 6, max_tokens=128),
        schedule="client-batching",
        num_silos=2,
        on_platform=True,
        min_tokens=16,
    ),
)
QUICK = (SHAPES[0], SHAPES[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    environment = party_environment({**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: TID251 - an entry point
    rows: list[Row] = []
    code = 0
    try:
        asyncio.run(_measure(QUICK if options.quick else SHAPES, options, environment, rows))
    except ChildError as error:
        say(str(error))
        code = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; every process has been ended and the temporary folder deleted")
        code = 130
    if options.memory and not code:
        rows += [_memory_row(shape.case, party) for shape in largest(SHAPES) for party in PARTIES]
    _show(rows)
    if options.json is not None and not code:
        write_json(options.json, rows=rows, machine=describe_machine(threads=1))
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.planner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=6, help="measured steps of each silo (default 6)")
    parser.add_argument("--repeats", type=positive, default=1, help="runs of each row (default 1)")
    parser.add_argument("--quick", action="store_true", help="two rows of seconds alone")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave memory out")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    options = parser.parse_args(arguments)
    options.memory = options.memory and not options.quick
    return options


async def _measure(
    shapes: Sequence[Shape], options: argparse.Namespace, environment: Mapping[str, str], rows: list[Row]
) -> None:
    for number, shape in enumerate(shapes, 1):
        for _ in range(options.repeats):
            rows.append(await measure(shape, options.steps, environment))
            say(f"row {number} of {len(shapes)}: {_sentence(rows[-1])}")


async def measure(shape: Shape, steps: int, environment: Mapping[str, str]) -> Row:
    """Train one shape and ask the planner for it.

    Raises:
        ChildError: The process failed.
    """
    case = shape.case
    if shape.on_platform:
        return await _measure_platform(shape, steps, environment)
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as work:
        folder = Path(work, "model")
        write_model(case, folder)
        spec = federation_spec(
            case,
            folder,
            schedule=shape.schedule,
            num_silos=shape.num_silos,
            steps=steps + WARM_UPS,
            **shape.fields,
        )
        request = FederationRequest(
            spec=spec,
            model_folder=folder,
            vocab_size=case.vocab_size,
            round_trip_seconds=shape.round_trip_ms / _MILLISECONDS,
            warm_ups=WARM_UPS,
            measures_speed=True,
        )
        answer = await run_federation(request, environment)
        planned = plan_for(spec, ModelFolder.open(folder), mean_speed(answer.speeds), shape.round_trip_ms)
    return _told(shape, spec, answer, planned)


async def _measure_platform(shape: Shape, steps: int, environment: Mapping[str, str]) -> Row:
    case = shape.case
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as work:
        folder = Path(work, "model")
        write_model(case, folder)
        first, second = (
            federation_spec(
                case,
                folder,
                schedule=shape.schedule,
                num_silos=shape.num_silos,
                steps=steps + WARM_UPS,
                seed=seed,
                **shape.fields,
            )
            for seed in (0, 1)
        )
        request = PlannedRequest(
            first=first,
            second=second,
            model_folder=folder,
            vocab_size=case.vocab_size,
            warm_ups=WARM_UPS,
            min_tokens=shape.min_tokens,
        )
        async with child("bench.planned_run", request, environment=environment) as running:
            answer = await running.receive(PlannedAnswer)
            await running.finished()
    seconds = statistics.median(answer.step_seconds)
    return {
        **_names(shape),
        "step_seconds": seconds,
        "planned_step_seconds": answer.planned_step_seconds,
        "ratio": answer.planned_step_seconds / seconds,
        "step_bytes": answer.step_bytes,
        "planned_step_bytes": answer.planned_step_bytes,
        "bytes_ratio": answer.planned_step_bytes / answer.step_bytes,
        "runs_seconds": list(answer.step_seconds),
        "assumptions": list(answer.assumptions),
    }


def plan_for(spec: JobSpec, folder: ModelFolder, speed: Speed, round_trip_ms: int) -> Prediction:
    """Return what the planner says of parties that are threads of one process on this machine's cores."""
    layers = spec.silos[0].cut
    line = Line(round_trip_seconds=round_trip_ms / _MILLISECONDS)
    around = Surroundings(
        trunks=[speed] * spec.replicas,
        silos={silo.name: SiloPlace(speed, line) for silo in spec.silos},
        cores=Cores(number=usable_cores(), is_one_process=True),
    )
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    return predict(spec, folder, cut, around)


def mean_speed(speeds: Sequence[Speed]) -> Speed:
    """Return the speed at which work takes the mean of what it takes at each of these."""

    def mean(values: Sequence[float]) -> float:
        return statistics.harmonic_mean(values)

    return Speed(
        layer_seconds=statistics.fmean(speed.layer_seconds for speed in speeds),
        rates=tuple(
            Rate(same[0].width, mean([rate.flops_per_second for rate in same]))
            for same in zip(*(speed.rates for speed in speeds), strict=True)
        ),
        logits_per_second=mean([speed.logits_per_second for speed in speeds]),
        updates_per_second=mean([speed.updates_per_second for speed in speeds]),
        tensor_seconds=statistics.fmean(speed.tensor_seconds for speed in speeds),
    )


def _told(shape: Shape, spec: JobSpec, answer: FederationAnswer, planned: Prediction) -> Row:
    planned_bytes = planned.step_bytes + planned.sums_per_round * planned.sum_bytes / spec.steps_per_round
    return {
        **_names(shape),
        "step_seconds": answer.seconds,
        "planned_step_seconds": planned.step_seconds,
        "ratio": planned.step_seconds / answer.seconds,
        "step_bytes": answer.bytes_per_step,
        "planned_step_bytes": planned_bytes,
        "bytes_ratio": planned_bytes / answer.bytes_per_step,
        "planned_silo_seconds": planned.silo_seconds,
        "planned_trunk_seconds": planned.trunk_seconds,
        "runs_seconds": list(answer.step_seconds),
        "speeds": [_speed_told(speed) for speed in answer.speeds],
    }


def _names(shape: Shape) -> Row:
    return {
        "kind": "step",
        "dim": shape.case.dim,
        "layers": shape.case.layers,
        "adapter": shape.case.adapter,
        "schedule": shape.schedule,
        "replicas": shape.replicas,
        "silo_blocks": shape.silo_blocks,
        "silos": shape.num_silos,
        "row_tokens": [shape.min_tokens or shape.case.max_tokens, shape.case.max_tokens],
        "round_trip_ms": shape.round_trip_ms,
        "where": "platform" if shape.on_platform else "one process",
    }


def _speed_told(speed: Speed) -> dict[str, Any]:
    return {
        "layer_seconds": speed.layer_seconds,
        "flops_per_second": {str(rate.width): rate.flops_per_second for rate in speed.rates},
        "logits_per_second": speed.logits_per_second,
        "updates_per_second": speed.updates_per_second,
        "tensor_seconds": speed.tensor_seconds,
    }


def largest(shapes: Sequence[Shape]) -> list[Shape]:
    """Return one shape for each adapter: that of the widest model."""
    by_adapter = {shape.case.adapter: shape for shape in sorted(shapes, key=lambda shape: shape.case.dim)}
    return list(by_adapter.values())


def _memory_row(case: Case, party: Any) -> Row:
    row = measure_memory(party, case)
    return {
        "kind": "memory",
        "role": "trunk" if party == "worker" else "bottom and top",
        "dim": row.dim,
        "layers": row.layers,
        "adapter": row.adapter,
        "measured_bytes": row.measured,
        "planned_bytes": row.estimate,
        "ratio": row.ratio,
    }


def _sentence(row: Row) -> str:
    return (
        f"dim {row['dim']} x {row['layers']}, {row['adapter']}, {row['schedule']}, {row['silos']} silos: "
        f"{row['step_seconds']:.3f} s per step, {row['ratio']:.2f} of it planned"
    )


def _show(rows: Sequence[Row]) -> None:
    steps = [row for row in rows if row["kind"] == "step"]
    if steps:
        print_table("A step: measured, and as planned", _COLUMNS, map(_cells, steps))
    memory = [row for row in rows if row["kind"] == "memory"]
    if memory:
        print_table("Memory while training", _MEMORY_COLUMNS, map(_memory_cells, memory))


def _cells(row: Row) -> list[str]:
    replicas = f" {row['replicas']}" if row["replicas"] > 1 else ""
    return [
        f"{row['dim']} x {row['layers']}",
        row["adapter"],
        row["schedule"] + replicas,
        row["silo_blocks"],
        str(row["silos"]),
        "-".join(map(str, sorted(set(row["row_tokens"])))),
        str(row["round_trip_ms"]),
        row["where"],
        f"{row['step_seconds']:.3f}",
        f"{row['planned_step_seconds']:.3f}",
        f"{row['ratio']:.2f}",
        f"{row['step_bytes']:.0f}",
        f"{row['planned_step_bytes']:.0f}",
        f"{row['bytes_ratio']:.2f}",
    ]


def _memory_cells(row: Row) -> list[str]:
    sizes = [f"{row[name] / _MIB:.1f}" for name in ("measured_bytes", "planned_bytes")]
    return [row["role"], f"{row['dim']} x {row['layers']}", row["adapter"], *sizes, f"{row['ratio']:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
