"""How much memory do a worker and a silo need, against the planner's estimate?

For each size a random fp32 model of the Llama layout is written, and one process trains the trunk of it for
three steps as a worker does, another one the silo's blocks as an agent does; nothing crosses a wire. Measured
is the largest resident memory of each (VmHWM), less what the process had before it loaded its layers: so the
program and its libraries are not in it, as they are not in the estimate (splitlearn.planning.estimates).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.cases import Case
from bench.machine import describe_machine
from bench.model_folder import write_model
from bench.tables import json_path, print_table, write_json
from splitlearn.party_environment import party_environment, silo_environment
from splitlearn.planning import ModelFolder, Role, Training, estimate_memory
from splitlearn.simulation.platform.memory import peak_memory_of
from splitlearn.spec import JobSpec

_MIB = 1 << 20
_COLUMNS = ("party", "dim", "layers", "adapter", "cells", "lasting", "estimate", "measured", "of it")
_TIMEOUT_SECONDS = 300
Party = Literal["worker", "agent"]
PARTIES: tuple[Party, ...] = ("worker", "agent")
SIZES = ((256, 8, 4096), (512, 8, 8192), (768, 12, 8192))


@dataclass(frozen=True, slots=True)
class Row:
    """One party of one size; all in bytes but the sizes."""

    party: Party
    dim: int
    layers: int
    vocab_size: int
    adapter: str
    cells: int
    lasting: int
    estimate: int
    measured: int

    @property
    def ratio(self) -> float:
        """Of what was measured, what the planner said."""
        return self.estimate / self.measured


def measure(party: Party, case: Case) -> Row:
    """Train in a process of its own, and set what it needed beside the estimate."""
    with tempfile.TemporaryDirectory() as work:
        folder, spec_file, spec = Path(work, "model"), Path(work, "spec.json"), _spec(case)
        write_model(case, folder)
        spec_file.write_bytes(spec.canonical_bytes())
        command = [sys.executable, "-m", "bench.party_memory_child", party, str(folder), str(spec_file)]
        its_environment = party_environment if party == "worker" else silo_environment
        environment = its_environment(
            {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251 - an entry point; the child gets it
        )
        done = subprocess.run(  # noqa: S603 - this interpreter, our own module
            command, env=environment, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
        lasting, estimate = planned(party, ModelFolder.open(folder), spec)
    measured = int(json.loads(done.stdout.splitlines()[-1])["bytes"])
    cells = case.batch_size * case.max_tokens
    sizes = (case.dim, case.layers, case.vocab_size, case.adapter, cells)
    return Row(party, *sizes, lasting, estimate, measured)


def planned(party: Party, folder: ModelFolder, spec: JobSpec) -> tuple[int, int]:
    """Return what lasts between steps, and all of it, by the planner's arithmetic."""
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    roles = (Role.TRUNK,) if party == "worker" else (Role.BOTTOM, Role.TOP)
    parts = [estimate_memory(folder, cut, role, Training.of(spec, role)) for role in roles]
    return sum(part.lasting for part in parts), sum(part.total for part in parts)


def _spec(case: Case) -> JobSpec:
    return JobSpec.parse(
        {
            "model": "m",
            "silos": [{"name": "silo", "dataset": "d", "cut": {"bottom_layers": 1, "top_layers": 1}}],
            "silo_blocks": "local",
            "adapter": {"kind": case.adapter},
            "batch_size": case.batch_size,
            "max_tokens": case.max_tokens,
        }
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.party_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    if peak_memory_of(os.getpid()) is None:
        parser.error("this system does not tell a process's peak memory; Linux does (/proc/PID/status)")
    options = parser.parse_args(arguments)
    rows = [
        measure(party, Case(dim=dim, layers=layers, adapter=adapter, clip=None, vocab_size=vocab_size))
        for dim, layers, vocab_size in SIZES
        for adapter in ("full", "lora")
        for party in PARTIES
    ]
    print_table("memory in MiB", _COLUMNS, [_cells(row) for row in rows])
    if options.json is not None:
        told = [{**asdict(row), "ratio": row.ratio} for row in rows]
        write_json(options.json, rows=told, machine=describe_machine(threads=1))
    return 0


def _cells(row: Row) -> list[Any]:
    sizes = [f"{value / _MIB:.1f}" for value in (row.lasting, row.estimate, row.measured)]
    return [row.party, row.dim, row.layers, row.adapter, row.cells, *sizes, f"{row.ratio:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
