"""A whole federation in one process: K silos and a worker, over memory links, through the real thing.

The same parties, protocol, channel and checkpoints as between machines; only the links are of memory.
In a notebook::

    spec = JobSpec.parse({"model": "folder", "silos": [...], ...})
    data = [load_silo_data(path, silo_name=..., ...) for path in paths]
    result = simulate(spec, model_folder=Path("folder"), data=data, work_dir=Path("runs/first"))
    print(result.eval_loss)
"""

import asyncio
import contextlib
import math
import resource
import shutil
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splitlearn.errors import DataError, StorageError
from splitlearn.exchange import Exchange
from splitlearn.identity import Identity, TrustStore
from splitlearn.link import Connect, MemorySwitchboard
from splitlearn.parties import (
    ComputeThread,
    OnProgress,
    SiloAveraging,
    SiloParty,
    TrunkParty,
    ignore_progress,
    phases_of,
    summaries_of,
)
from splitlearn.partition import (
    ModelFolder,
    SiloBlocks,
    export_result,
    load_silo_blocks,
    segment_state,
)
from splitlearn.protocol import SiloProtocol
from splitlearn.simulation.choosing import AUTO, choose_here, refuse_unserved_but_open
from splitlearn.simulation.record import RunRecord, WireBytes
from splitlearn.simulation.results import SiloResult, SimulationResult, Status
from splitlearn.simulation.roster import WORKER_NAME, Roster, enrol
from splitlearn.simulation.starting import load_started_trunk, refuse_unequal_blocks, start_of_silo
from splitlearn.simulation.together import Run, all_or_first_error, run_to_the_end
from splitlearn.simulation.trunk_side import TrunkSide, trunk_party, trunk_places
from splitlearn.spec import JobSpec
from splitlearn.tasks import BatchPlan, EvaluationPlan, SiloData
from splitlearn.training import CheckpointStore, SiloTrainer
from splitlearn.wire import Codec, Phase

TRUNK_PARTY = trunk_party(0)
HISTORY = "history.jsonl"
SUM_RECORD = "sums.json"


class Lines:
    """The links of a simulated federation; a test may give one whose links break.

    Args:
        names: Silos that will dial.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._switchboards = {name: MemorySwitchboard() for name in names}

    def dial(self, name: str) -> Connect:
        """Return how this silo reaches the worker."""
        return self._switchboards[name].dial

    def answer(self, name: str) -> Connect:
        """Return how the worker awaits this silo."""
        return self._switchboards[name].answer


@dataclass
class _Silo:
    data: SiloData
    blocks: SiloBlocks
    trainer: SiloTrainer
    exchange: Exchange
    identity: Identity
    trust: TrustStore
    folder: ModelFolder


def simulate(
    spec: JobSpec,
    *,
    model_folder: Path,
    data: Sequence[SiloData],
    work_dir: Path,
    on_progress: OnProgress = ignore_progress,
    resume: bool = False,
    lost: Collection[str] = (),
    make_lines: Callable[[Sequence[str]], Lines] = Lines,
) -> SimulationResult:
    """Run a job from its first round to every silo's result.

    Blocks until the end; works from a notebook too. Torch's number of threads is left as it is: every
    party computes in a thread of its own.

    Args:
        spec: The job.
        model_folder: The model, a Hugging Face folder with safetensors.
        data: Every present silo's data, in the roster's order.
        work_dir: Gets ``silos/<name>/{checkpoints,result}`` and ``worker/checkpoints``.
        on_progress: Told of every turn, step, evaluation and round; must not block.
        resume: Go on from the last round that every party has on disk; otherwise begin anew.
        lost: Silos of the roster that take part no more: rounds are trained without them.
        make_lines: Makes the links.

    Raises:
        UnservedError: The specification asks for what is not served yet.
        TrunklineError: Whatever ended the job before its end.
    """
    federation = Federation(
        spec,
        model_folder=model_folder,
        data=data,
        work_dir=work_dir,
        on_progress=on_progress,
        lost=lost,
        make_lines=make_lines,
    )
    return federation.run(resume=resume)


def _refuse_other_names(present: Sequence[str], data: Sequence[SiloData]) -> None:
    expected, given = list(present), [silo.name for silo in data]
    if expected != given:
        raise DataError(f"data is of silos {given}, the roster is {expected}; give each silo's, in order")


class Federation:
    """One simulated job that can be cancelled, and asked what is known so far; see :func:`simulate`.

    Attributes:
        choice: What schedule was chosen and why, where the specification left it open; None elsewhere.

    Raises:
        UnservedError: The specification asks for what is not served yet.
        ModelError: The model or the cut is wrong.
        DataError: The data is of other silos than the roster's.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        model_folder: Path,
        data: Sequence[SiloData],
        work_dir: Path,
        on_progress: OnProgress = ignore_progress,
        lost: Collection[str] = (),
        make_lines: Callable[[Sequence[str]], Lines] = Lines,
    ) -> None:
        refuse_unserved_but_open(spec, on_platform=False)
        self._present = tuple(silo.name for silo in spec.silos if silo.name not in lost)
        _refuse_other_names(self._present, data)
        self._folder = ModelFolder.open(model_folder)
        self.choice = choose_here(spec, self._folder) if spec.schedule == AUTO else None
        spec = self._spec = spec if self.choice is None else self.choice.spec
        cut = spec.silos[0].cut
        self._cut = self._folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers)
        self._data = data
        self._work_dir = work_dir
        self._record = RunRecord(
            work_dir / HISTORY,
            traffic=self._traffic,
            forward=on_progress,
            replica_of={silo.name: spec.replica_of(silo.name) for silo in spec.silos},
        )
        self._make_lines = make_lines
        self._silos: list[_Silo] = []
        self._exported: set[Path] = set()
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False
        self._is_resumed = False
        self._leads: list[TrunkParty] = []

    def run(self, *, resume: bool = False) -> SimulationResult:
        """Run the job to its end; once. Blocks; see :func:`simulate`.

        Raises:
            asyncio.CancelledError: :meth:`cancel` was called. What the last finished round left is kept.
        """
        return run_to_the_end(lambda: asyncio.run(self._run(resume=resume)))

    def cancel(self) -> None:
        """Ask the run to end soon; from any thread, or from a signal handler."""
        self._is_cancelled = True
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the run has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def result(self, status: Status) -> SimulationResult:
        """Return what is known so far; artifacts only of those that are whole."""
        return self._result(status)

    @property
    def last_round(self) -> int:
        """The last round that a resumed run could go on from; 0 for none."""
        return self._record.last_round

    def find_last_round(self) -> int:
        """Return the last round that an earlier, interrupted run has on disk whole; 0 for none.

        Raises:
            StorageError: The disk refused, or the record of the rounds is not what the checkpoints are.
        """
        return min(self._find_last_rounds())

    def _find_last_rounds(self) -> list[int]:
        """Return the last whole round of each replica; nothing after these counts any more."""
        self._record.read()
        found = [self._find_last_round_of(replica) for replica in self._replicas]
        if self._spec.silos_meet or max(found) > min(found) + 1:
            # Blocks hold a sum that some silos go back before, or what was told of a round is not told again;
            # or the average is not kept any more.
            found = [min(found)] * len(found)
        self._record.keep(found)
        return found

    def _find_last_round_of(self, replica: int) -> int:
        share = [name for name in self._present if self._replica_of(name) == replica]
        parties = [trunk_party(replica), *share]
        on_disk = min(self._checkpoints(party, last_round=None).last_round() for party in parties)
        last_round = min(on_disk, self._record.last_round_of(replica))
        if last_round < on_disk - 1:
            # A round is recorded right after its checkpoints, so no crash leaves more than one out.
            raise StorageError(
                f"{self._work_dir / HISTORY} ends with round {last_round}, the checkpoints with {on_disk}; "
                "put the file back, or begin anew"
            )
        return last_round

    async def _run(self, *, resume: bool) -> SimulationResult:
        self._task = asyncio.current_task()
        if self._is_cancelled:
            raise asyncio.CancelledError
        last_rounds = self._begin(resume=resume)
        roster = enrol(self._spec)
        lines = self._make_lines(self._present)
        trunks = [load_started_trunk(self._spec, self._folder, self._cut) for _ in self._replicas]
        async with AsyncExitStack() as stack:
            for data in self._data:
                self._silos.append(await self._silo(stack, roster, lines, data))
            refuse_unequal_blocks(self._spec, {silo.data.name: silo.trainer.state() for silo in self._silos})
            runs = [
                await self._silo_run(stack, silo, last_round=last_rounds[self._replica_of(silo.data.name)])
                for silo in self._silos
            ]
            side = TrunkSide(
                self._spec,
                roster,
                lines,
                self._present,
                lambda replica: self._checkpoints(trunk_party(replica), last_round=last_rounds[replica]),
                self._record,
            )
            leads = await side.runs(stack, trunks)
            self._leads = side.parties
            await all_or_first_error([*leads, *runs])
            trunk_state = segment_state(trunks[0])  # replicas end with their average
            for silo in self._silos:
                await asyncio.to_thread(self._export, silo, trunk_state)
        return self._result("completed")

    def _begin(self, *, resume: bool) -> list[int]:
        """Return each replica's round to go on from, with everything after it forgotten."""
        if resume:
            self._is_resumed = True
            return self._find_last_rounds()
        for artifact in map(self._artifact, self._present):
            if artifact.exists():
                raise StorageError(f"{artifact} exists already; move it away, or choose another work_dir")
        for party in self._places():
            self._checkpoints(party, last_round=None).clear()
        for silo in self._present:
            self._sum_record(silo).unlink(missing_ok=True)
        self._record.begin()
        return [0] * len(self._replicas)

    async def _silo(self, stack: AsyncExitStack, roster: Roster, lines: Lines, data: SiloData) -> _Silo:
        spec, name = self._spec, data.name
        # Frozen blocks stay as they are in the base model: no adapter, nothing to train.
        adapter = None if spec.silo_blocks == "frozen" else spec.adapter
        start = start_of_silo(spec, self._folder, name)
        folder = start.folder if start else self._folder
        blocks = load_silo_blocks(folder, self._cut, adapter=adapter, seed=spec.seed)
        if start:
            start.begin_blocks(blocks, are_frozen=adapter is None)
        undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
        trainer = SiloTrainer(blocks, spec=spec, silo=name, undoable=undoable)
        protocol = SiloProtocol(
            roster.terms[name],
            identity=roster.silos[name],
            trust=roster.trust,
            codec=Codec(spec.codec),
            served_phases=phases_of(spec),
        )
        exchange = Exchange(
            protocol, connect=lines.dial(name), peer=WORKER_NAME, patience_seconds=spec.patience_seconds
        )
        begun = await stack.enter_async_context(exchange)
        return _Silo(data, blocks, trainer, begun, roster.silos[name], roster.trust, folder)

    async def _silo_run(self, stack: AsyncExitStack, silo: _Silo, *, last_round: int) -> Run:
        spec, data = self._spec, silo.data
        compute = await stack.enter_async_context(ComputeThread(f"silo {data.name}"))
        party = SiloParty(
            spec=spec,
            silo=data.name,
            trainer=silo.trainer,
            training=BatchPlan(
                data.training,
                batch_size=spec.batch_size,
                seed=spec.seed,
                silo_name=data.name,
                pad_token_id=0,  # any will do: nothing valid attends to a pad, and no pad crosses
            ),
            evaluation=EvaluationPlan(
                data.heldout,
                batch_size=spec.evaluation.batch_size,
                pad_token_id=0,
                max_examples=spec.evaluation.max_rows,
                task=spec.task,
            ),
            exchange=silo.exchange,
            compute=compute,
            checkpoints=self._checkpoints(data.name, last_round=last_round),
            on_progress=self._record,
            averaging=self._averaging(silo, compute),
            summaries=summaries_of(
                spec,
                data.heldout,
                blocks=silo.blocks,
                model_folder=self._folder.path,
                compute=compute,
                peer=WORKER_NAME,
            ),
        )
        return party.run

    @property
    def _replicas(self) -> range:
        return range(len(self._spec.shares))

    def _replica_of(self, silo: str) -> int:
        return self._spec.replica_of(silo)

    def _averaging(self, silo: _Silo, compute: ComputeThread) -> SiloAveraging | None:
        if self._spec.silo_blocks != "averaged":
            return None
        return SiloAveraging.of(
            self._spec,
            job=self._spec.name,
            identity=silo.identity,
            trust=silo.trust,
            record=self._sum_record(silo.data.name),
            trainer=silo.trainer,
            compute=compute,
        )

    def _sum_record(self, silo: str) -> Path:
        return self._work_dir / "silos" / silo / SUM_RECORD

    def _places(self) -> dict[str, str]:
        """Return each party's folder."""
        return {
            **trunk_places(self._spec),
            **{name: f"silos/{name}" for name in self._present},
        }

    def _checkpoints(self, party: str, *, last_round: int | None) -> CheckpointStore:
        folder = self._work_dir / self._places()[party] / "checkpoints"
        return _Checkpoints(folder, spec=self._spec, party=party, newest=last_round)

    def _traffic(self) -> dict[str, WireBytes]:
        return {
            silo.data.name: WireBytes(
                training=silo.exchange.traffic.bytes_of(Phase.TRAIN),
                evaluation=silo.exchange.traffic.bytes_of(Phase.EVAL)
                + silo.exchange.traffic.bytes_of(Phase.GENERATE),
            )
            for silo in self._silos
        }

    def _result(self, status: Status) -> SimulationResult:
        turns = self._record.turns
        per_step = [turn.seconds / turn.num_steps for turn in turns]
        return SimulationResult(
            status=status,
            spec=self._spec,
            threads=torch.get_num_threads(),
            silos=tuple(self._silo_result(data) for data in self._data),
            seconds_per_step=statistics.median(per_step) if per_step else math.nan,
            num_steps=sum(turn.num_steps for turn in turns),
            peak_memory_bytes={"all": peak_memory_bytes()},
            last_round=min((lead.rounds.last_round for lead in self._leads), default=0),
        )

    def _silo_result(self, data: SiloData) -> SiloResult:
        record, artifact = self._record, self._artifact(data.name)
        wire_bytes = record.wire_bytes(data.name)
        resent = (s.exchange.traffic.resent_messages for s in self._silos if s.data.name == data.name)
        return SiloResult(
            name=data.name,
            report=data.report,
            steps=tuple(step for step in record.steps if step.silo == data.name),
            evaluations=tuple(found for found in record.evaluations if found.silo == data.name),
            wire_bytes=wire_bytes.training,
            eval_wire_bytes=wire_bytes.evaluation,
            resent_messages=sum(resent),
            artifact=artifact if artifact in self._exported else None,
            result_round=self._result_round,
        )

    @property
    def _result_round(self) -> int | None:
        """The round that the results are of; all replicas know the same."""
        rounds = [lead.rounds for lead in self._leads]
        return rounds[0].result_round if rounds and all(each.is_over for each in rounds) else None

    def _artifact(self, silo: str) -> Path:
        return self._work_dir / "silos" / silo / "result"

    def _export(self, silo: _Silo, trunk_state: dict[str, torch.Tensor]) -> None:
        target = self._artifact(silo.data.name)
        parts = (segment_state(silo.blocks.bottom), trunk_state, segment_state(silo.blocks.top))
        if self._is_resumed and target.is_dir():
            shutil.rmtree(target)  # of this very job, which was interrupted while it exported
        export_result(silo.folder, parts, self._spec.adapter, target)
        self._exported.add(target)


class _Checkpoints(CheckpointStore):
    """A party's checkpoints, of which those after ``newest`` (None: of none) do not count."""

    def __init__(self, folder: Path, *, spec: JobSpec, party: str, newest: int | None) -> None:
        super().__init__(folder, spec=spec, party=party)
        self._newest = newest

    def last_round(self) -> int:
        last_round = super().last_round()
        return last_round if self._newest is None else min(last_round, self._newest)


def peak_memory_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
