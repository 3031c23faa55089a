"""How much memory does a silo's agent need, against a client of federated averaging?

The agent is the real one: a platform of one silo is started, its agent trains LoRA on its bottom and top
layers through gateway and worker, and exports the result. The client of federated averaging
(bench.fedavg_client) holds the whole model, with the same libraries, adapter, optimiser, threads and rows.
Both train a random fp32 model of the Llama layout.

Measured is the largest resident memory (VmHWM) of one process of each, its libraries included and nothing
taken off: of the agent's process for the job, from its fork to its end, the export of its result included,
and of the client to the end of its last step. The agent has two more: its supervisor, which never loads
torch, and the forker, which loads everything beforehand and computes nothing. The job's process shares the
forker's pages; they are counted in both.

In theory a party needs its parameters, gradients, optimiser states, the activations that its layers keep, and
the logits three times (themselves, their log-softmax, their gradient): all by the planner's arithmetic
(splitlearn.planning.estimates). What the imports alone take is measured, and added.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.agent_processes import AgentPeaks, Part
from bench.cases import SILO, Case, synthetic_records
from bench.documents import ClientPeaks, Task
from bench.footprint import Theory, theory_of
from bench.machine import describe_machine
from bench.model_folder import write_model
from bench.platform_job import platform_environment, run_to_end
from bench.processes import ChildError, child
from bench.tables import json_path, positive, print_table, say, write_json
from splitlearn.errors import TrunklineError
from splitlearn.planning import ModelFolder, Role
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.platform.memory import peak_memory_of

_INTERRUPTED = 130
_MIB = 1 << 20
_VOCAB_SIZE = 8192
_COLUMNS = (
    "MiB", "imports", "weights", "gradients", "optimiser", "activations", "logits", "in theory", "peak",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Party:
    """One side's memory in bytes.

    Attributes:
        imports_bytes: Of a process that has imported what this one needs, and nothing else.
        peak_bytes: The largest resident memory of its process.
        theory: What its layers need.
    """

    imports_bytes: int
    peak_bytes: int
    theory: Theory

    @property
    def expected_bytes(self) -> int:
        """Imports and layers."""
        return self.imports_bytes + self.theory.total

    def row(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "expected_bytes": self.expected_bytes}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides of one case.

    Attributes:
        case: What was trained.
        agent: Its process for the job.
        client: Of federated averaging.
        training_bytes: The largest memory that the agent's process had had when its last round was saved.
        supervisor_bytes: The largest of the agent's supervisor.
    """

    case: Case
    agent: Party
    client: Party
    training_bytes: int
    supervisor_bytes: int

    def row(self) -> dict[str, Any]:
        """Return the row for JSON; ratios are agent over client."""
        case = self.case
        return {
            "dim": case.dim,
            "layers": case.layers,
            "vocab_size": case.vocab_size,
            "adapter": case.adapter,
            "tokens_per_batch": case.num_tokens,
            "ratio": self.agent.peak_bytes / self.client.peak_bytes,
            "theory_ratio": self.agent.expected_bytes / self.client.expected_bytes,
            "theory_ratio_without_imports": self.agent.theory.total / self.client.theory.total,
            "agent": self.agent.row(),
            "client": self.client.row(),
            "agent_training_peak_bytes": self.training_bytes,
            "agent_supervisor_peak_bytes": self.supervisor_bytes,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    rows = []
    try:
        for vocab_size in options.vocab_size or (_VOCAB_SIZE,):
            comparison = compare(_case(options, vocab_size), num_steps=options.steps, threads=options.threads)
            _show(comparison)
            rows.append(comparison.row())
    except KeyboardInterrupt:
        say("interrupted; every process has been ended and the temporary folder deleted")
        return _INTERRUPTED
    except ChildError as error:
        say(str(error))
        return 1
    except TrunklineError as error:
        say(error.message)
        return error.exit_code
    if options.json is not None:
        write_json(options.json, rows=rows, machine=describe_machine(threads=options.threads))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.agent_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if peak_memory_of(os.getpid()) is None:
        parser.error("this system does not tell a process's peak memory; Linux does (/proc/PID/status)")
    parser.add_argument("--dim", type=positive, default=1024, help="hidden size (default 1024)")
    parser.add_argument("--layers", type=positive, default=24, help="of the whole model (default 24)")
    parser.add_argument("--vocab-size", type=positive, action="append", help="a row for each (default 8192)")
    parser.add_argument("--batch-size", type=positive, default=8, help="rows of 128 tokens (default 8)")
    parser.add_argument("--steps", type=positive, default=2, help="(default 2)")
    parser.add_argument("--threads", type=positive, default=2, help="of torch, of each process (default 2)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def compare(case: Case, *, num_steps: int, threads: int) -> Comparison:
    """Measure both sides, one after the other, on a model made for it and deleted at the end.

    Raises:
        ChildError: The client failed.
        TrunklineError: The platform failed.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", ignore_cleanup_errors=True) as folder:
        model_folder = Path(folder) / "models" / "llama"
        say(f"making a model of {case.layers} layers, dim {case.dim}, vocabulary {case.vocab_size} ...")
        write_model(case, model_folder)
        task = Task(
            spec=case.spec(model_folder=model_folder, num_steps=num_steps),
            model_folder=model_folder,
            vocab_size=case.vocab_size,
            threads=threads,
            warmup=0,
            steps=num_steps,
        )
        say("a client of federated averaging ...")
        client = asyncio.run(_client(task))
        say("a platform of one silo ...")
        watched, training_bytes = _agent(task, Path(folder) / "run")
        return _comparison(case, task, watched, client, training_bytes=training_bytes)


async def _client(task: Task) -> ClientPeaks:
    own = dict(os.environ)  # noqa: TID251 - an entry point; the child gets it
    async with child("bench.fedavg_client", task, environment=own) as client:
        peaks = await client.receive(ClientPeaks)
        await client.finished()
    return peaks


def _agent(task: Task, work_dir: Path) -> tuple[dict[Part, int], int]:
    """Return the peaks of the agent's processes, and that of the job's until the end of the training."""
    federation = PlatformFederation(
        task.spec,
        model_folder=task.model_folder,
        data=[task.data()],
        rows={SILO: synthetic_records(task.spec, vocab_size=task.vocab_size)},
        work_dir=work_dir,
        threads=task.threads,
        environment=platform_environment(),
        keeps_running=True,
    )
    with AgentPeaks(federation.deployment, silo=SILO) as watched:
        told = run_to_end(federation)
    training = max(number.value for number in told.values("peak_memory_bytes", party="silo:"))
    return watched.peaks, int(training)


def _comparison(
    case: Case, task: Task, watched: Mapping[Part, int], client: ClientPeaks, *, training_bytes: int
) -> Comparison:
    folder = ModelFolder.open(task.model_folder)

    def theory(*roles: Role) -> Theory:
        return theory_of(folder, roles, task.spec)

    return Comparison(
        case,
        # A job that is over between two looks has said itself what it needed until then.
        agent=Party(
            watched["forker"],
            max(watched.get("job", 0), training_bytes),
            theory(Role.BOTTOM, Role.TOP),
        ),
        client=Party(client.imports_bytes, client.peak_bytes, theory(Role.BOTTOM, Role.TRUNK, Role.TOP)),
        training_bytes=training_bytes,
        supervisor_bytes=watched["supervisor"],
    )


def _case(options: argparse.Namespace, vocab_size: int) -> Case:
    return Case(
        dim=options.dim,
        layers=options.layers,
        adapter="lora",
        clip=None,
        vocab_size=vocab_size,
        batch_size=options.batch_size,
    )


def _show(comparison: Comparison) -> None:
    case, row = comparison.case, comparison.row()
    title = f"{case.layers} layers, dim {case.dim}, vocabulary {case.vocab_size}, {case.num_tokens} tokens"
    print_table(
        title,
        _COLUMNS,
        [_cells("agent's job", comparison.agent), _cells("FedAvg client", comparison.client)],
    )
    print(
        f"ratio {row['ratio']:.3f}; in theory {row['theory_ratio']:.3f}, without imports "
        f"{row['theory_ratio_without_imports']:.3f}"
    )
    print(
        f"of the agent's job until its training was over: {_mib(comparison.training_bytes)} MiB; "
        f"of the agent's supervisor: {_mib(comparison.supervisor_bytes)} MiB"
    )


def _cells(name: str, party: Party) -> list[str]:
    theory = party.theory
    parts = (theory.weights, theory.gradients, theory.optimizer, theory.activations, theory.logits)
    sizes = (party.imports_bytes, *parts, party.expected_bytes, party.peak_bytes)
    return [name, *map(_mib, sizes)]


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:.1f}"


if __name__ == "__main__":
    sys.exit(main())
