"""A whole federation in one process: K silos and a worker, over memory links, through the real thing.

The same parties, protocol, channel and checkpoints as between machines; only the links are of memory.
In a notebook::

    spec = JobSpec.parse({"model": "folder", "silos": [...], ...})
    data = [load_silo_data(path, silo_name=..., ...) for path in paths]
    result = simulate(spec, model_folder=Path("folder"), data=data, work_dir=Path("runs/first"))
    print(result.eval_loss)
"""

import asyncio
import resource
import statistics
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from splitlearn.errors import DataError, TrunklineError
from splitlearn.exchange import Exchange
from splitlearn.link import Connect, MemorySwitchboard
from splitlearn.parties import (
    ComputeThread,
    Evaluated,
    OnProgress,
    Progress,
    SiloParty,
    StepDone,
    TrunkParty,
    TurnFinished,
    ignore_progress,
)
from splitlearn.partition import (
    ModelFolder,
    SiloBlocks,
    TrunkSegment,
    export_result,
    load_silo_blocks,
    load_trunk,
    segment_state,
)
from splitlearn.protocol import SiloProtocol, TrunkProtocol
from splitlearn.simulation.results import SiloResult, SimulationResult
from splitlearn.simulation.roster import WORKER_NAME, Roster, enrol
from splitlearn.spec import JobSpec
from splitlearn.tasks import BatchPlan, EvaluationPlan, SiloData
from splitlearn.training import CheckpointStore, SiloTrainer, TrunkTrainer
from splitlearn.wire import Codec, Phase

R = TypeVar("R")
Run = Callable[[], Coroutine[Any, Any, None]]
TRUNK_PARTY = "trunk-0"
_LAST_WORDS_SECONDS = 5.0


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
class _Record:
    """Keeps what the parties report."""

    forward: OnProgress
    steps: dict[str, list[StepDone]] = field(default_factory=dict)
    evaluations: dict[str, list[Evaluated]] = field(default_factory=dict)
    turns: list[TurnFinished] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        match progress:
            case StepDone():
                self.steps.setdefault(progress.silo, []).append(progress)
            case Evaluated():
                self.evaluations.setdefault(progress.silo, []).append(progress)
            case TurnFinished():
                self.turns.append(progress)
            case _:
                pass
        self.forward(progress)


@dataclass
class _Silo:
    data: SiloData
    blocks: SiloBlocks
    trainer: SiloTrainer
    exchange: Exchange


def simulate(
    spec: JobSpec,
    *,
    model_folder: Path,
    data: Sequence[SiloData],
    work_dir: Path,
    on_progress: OnProgress = ignore_progress,
    resume: bool = False,
    make_lines: Callable[[Sequence[str]], Lines] = Lines,
) -> SimulationResult:
    """Run a job from its first round to every silo's result.

    Blocks until the end; works from a notebook too. Torch's number of threads is left as it is: every
    party computes in a thread of its own.

    Args:
        spec: The job.
        model_folder: The model, a Hugging Face folder with safetensors.
        data: Every silo's data, in the roster's order.
        work_dir: Gets ``silos/<name>/{checkpoints,result}`` and ``worker/checkpoints``.
        on_progress: Told of every turn, step, evaluation and round; must not block.
        resume: Go on from the last round that every party has on disk; otherwise begin anew.
        make_lines: Makes the links.

    Raises:
        UnservedError: The specification asks for what is not served yet.
        TrunklineError: Whatever ended the job before its end.
    """
    spec.refuse_unserved()
    _refuse_other_names(spec, data)
    federation = _Federation(
        spec,
        model_folder=model_folder,
        data=data,
        work_dir=work_dir,
        record=_Record(on_progress),
        make_lines=make_lines,
    )
    return _run_to_the_end(lambda: asyncio.run(federation.run(resume=resume)))


def _run_to_the_end(run: Callable[[], R]) -> R:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    # A notebook already runs a loop in this thread: take another thread.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(run).result()


def _refuse_other_names(spec: JobSpec, data: Sequence[SiloData]) -> None:
    expected, given = [silo.name for silo in spec.silos], [silo.name for silo in data]
    if expected != given:
        raise DataError(f"data is of silos {given}, the roster is {expected}; give each silo's, in order")


class _Federation:
    """The parts of one simulated job."""

    def __init__(
        self,
        spec: JobSpec,
        *,
        model_folder: Path,
        data: Sequence[SiloData],
        work_dir: Path,
        record: _Record,
        make_lines: Callable[[Sequence[str]], Lines],
    ) -> None:
        self._spec = spec
        self._folder = ModelFolder.open(model_folder)
        cut = spec.silos[0].cut
        self._cut = self._folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers)
        self._data = data
        self._work_dir = work_dir
        self._record = record
        self._make_lines = make_lines

    async def run(self, *, resume: bool) -> SimulationResult:
        roster = enrol(self._spec)
        lines = self._make_lines([silo.name for silo in self._spec.silos])
        trunk = load_trunk(self._folder, self._cut, adapter=self._spec.adapter, seed=self._spec.seed)
        async with AsyncExitStack() as stack:
            silos = [await self._silo(stack, roster, lines, data) for data in self._data]
            runs = [await self._silo_run(stack, silo, resume=resume) for silo in silos]
            runs.append(await self._trunk_run(stack, roster, lines, trunk, resume=resume))
            await _all_or_first_error(runs)
            return self._result(silos, trunk)

    async def _silo(self, stack: AsyncExitStack, roster: Roster, lines: Lines, data: SiloData) -> _Silo:
        spec, name = self._spec, data.name
        # Frozen blocks stay as they are in the base model: no adapter, nothing to train.
        adapter = None if spec.silo_blocks == "frozen" else spec.adapter
        blocks = load_silo_blocks(self._folder, self._cut, adapter=adapter, seed=spec.seed)
        undoable = len(spec.silos) > 1 and spec.silo_blocks != "frozen"
        trainer = SiloTrainer(blocks, spec=spec, silo=name, undoable=undoable)
        protocol = SiloProtocol(
            roster.terms[name], identity=roster.silos[name], trust=roster.trust, codec=Codec(spec.codec)
        )
        exchange = Exchange(
            protocol, connect=lines.dial(name), peer=WORKER_NAME, patience_seconds=spec.patience_seconds
        )
        return _Silo(data, blocks, trainer, await stack.enter_async_context(exchange))

    async def _silo_run(self, stack: AsyncExitStack, silo: _Silo, *, resume: bool) -> Run:
        spec, data = self._spec, silo.data
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
            ),
            exchange=silo.exchange,
            compute=await stack.enter_async_context(ComputeThread(f"silo {data.name}")),
            checkpoints=self._checkpoints(f"silos/{data.name}", data.name, resume=resume),
            on_progress=self._record,
        )
        return party.run

    async def _trunk_run(
        self, stack: AsyncExitStack, roster: Roster, lines: Lines, trunk: TrunkSegment, *, resume: bool
    ) -> Run:
        spec = self._spec
        exchanges = {
            silo.name: await stack.enter_async_context(
                Exchange(
                    TrunkProtocol(
                        roster.terms[silo.name],
                        identity=roster.worker,
                        trust=roster.trust,
                        codec=Codec(spec.codec),
                    ),
                    connect=lines.answer(silo.name),
                    peer=f"silo {silo.name!r}",
                    patience_seconds=spec.patience_seconds,
                )
            )
            for silo in spec.silos
        }
        party = TrunkParty(
            spec=spec,
            trainer=TrunkTrainer(trunk, spec=spec),
            exchanges=exchanges,
            compute=await stack.enter_async_context(ComputeThread(WORKER_NAME)),
            checkpoints=self._checkpoints("worker", TRUNK_PARTY, resume=resume),
            on_progress=self._record,
        )
        return party.run

    def _checkpoints(self, folder: str, party: str, *, resume: bool) -> CheckpointStore:
        store = CheckpointStore(self._work_dir / folder / "checkpoints", spec=self._spec, party=party)
        if not resume:
            store.clear()
        return store

    def _result(self, silos: list[_Silo], trunk: TrunkSegment) -> SimulationResult:
        record = self._record
        trunk_state = segment_state(trunk)
        return SimulationResult(
            status="completed",
            spec=self._spec,
            threads=torch.get_num_threads(),
            silos=tuple(
                SiloResult(
                    name=silo.data.name,
                    report=silo.data.report,
                    steps=tuple(record.steps.get(silo.data.name, ())),
                    evaluations=tuple(record.evaluations.get(silo.data.name, ())),
                    wire_bytes=silo.exchange.traffic.bytes_of(Phase.TRAIN),
                    eval_wire_bytes=silo.exchange.traffic.bytes_of(Phase.EVAL),
                    resent_messages=silo.exchange.traffic.resent_messages,
                    artifact=self._export(silo, trunk_state),
                )
                for silo in silos
            ),
            seconds_per_step=statistics.median(turn.seconds / turn.num_steps for turn in record.turns),
            num_steps=sum(turn.num_steps for turn in record.turns),
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _export(self, silo: _Silo, trunk_state: dict[str, torch.Tensor]) -> Path:
        target = self._work_dir / "silos" / silo.data.name / "result"
        parts = (segment_state(silo.blocks.bottom), trunk_state, segment_state(silo.blocks.top))
        export_result(self._folder, parts, self._spec.adapter, target)
        return target


async def _all_or_first_error(runs: Sequence[Run]) -> None:
    """Run all; of several errors the first is the cause, and the others get a moment to say goodbye."""
    tasks = [asyncio.create_task(run()) for run in runs]
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in done if task.exception() is not None]
        if failed:
            if pending:
                await asyncio.wait(pending, timeout=_LAST_WORDS_SECONDS)
            raise _root_cause([error for task in failed if (error := task.exception())])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _root_cause(errors: Sequence[BaseException]) -> BaseException:
    bugs = [error for error in errors if not isinstance(error, TrunklineError)]
    return (bugs or list(errors))[0]


def peak_memory_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
