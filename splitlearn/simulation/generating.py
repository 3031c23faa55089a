"""Generation with one silo and the worker in this process, through the sealed channel, over memory links.

In a notebook, with what a simulated job left in its work folder::

    spec = JobSpec.parse(...)
    generated = generate(spec, prompts, GenerationOptions(max_new_tokens=20),
                         model_folder=Path("folder"), silo="north", work_dir=Path("runs/first"))
    print(generated.tokens)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from splitlearn.errors import LinkError, StorageError, TrainingError
from splitlearn.exchange import Exchange, Traffic
from splitlearn.generation import (
    CacheLimits,
    Generated,
    GenerationOptions,
    GenerationTalk,
    SiloGenerator,
    TrunkCaches,
    TrunkGeneration,
)
from splitlearn.link import Connect
from splitlearn.parties import ComputeThread
from splitlearn.partition import ModelFolder, SiloBlocks, TrunkSegment, load_silo_blocks, load_trunk
from splitlearn.protocol import GENERATION_PHASES, Conversation, SiloProtocol, TrunkProtocol
from splitlearn.simulation.federation import Lines
from splitlearn.simulation.roster import WORKER_NAME, enrol
from splitlearn.simulation.starting import load_started_trunk, start_of_silo
from splitlearn.simulation.together import run_to_the_end
from splitlearn.simulation.trunk_side import trunk_places
from splitlearn.spec import JobSpec
from splitlearn.training import (
    CheckpointStore,
    SiloTrainer,
    TrunkTrainer,
    average_replicas,
    state_of_replica,
)
from splitlearn.wire import Codec

_IDLE_SECONDS = 600.0
_LAST_WORDS_SECONDS = 5.0


@dataclass(frozen=True)
class Parts:
    """The model of one silo and the trunk, all with the weights of one round.

    Attributes:
        blocks: The silo's bottom and top.
        trunk: The trunk.
        round: The round; 0 for the base model.
    """

    blocks: SiloBlocks
    trunk: TrunkSegment
    round: int


@dataclass(frozen=True)
class Generation:
    """A generation under way.

    Attributes:
        generator: Asks the trunk.
        traffic: What crossed so far, counted at the silo.
        served: The trunk's side.
    """

    generator: SiloGenerator
    traffic: Traffic
    served: TrunkGeneration


def generate(
    spec: JobSpec,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    model_folder: Path,
    silo: str,
    work_dir: Path | None = None,
) -> Generated:
    """Generate an answer to every prompt, as one silo and the worker would; blocks until it is done.

    Args:
        spec: The job.
        prompts: Token ids of each prompt.
        options: What to generate.
        model_folder: The base model.
        silo: Whose blocks are taken.
        work_dir: Of a job that :func:`~splitlearn.simulation.federation.simulate` ran; its last round
            counts. None for the base model.

    Raises:
        StorageError: The folder holds no round of this job.
        TrunklineError: The prompts or options are refused.
    """

    async def run() -> Generated:
        parts = load_parts(spec, model_folder=model_folder, silo=silo, work_dir=work_dir)
        async with generating(spec, parts, silo=silo) as generation:
            return await generation.generator.generate(prompts, options)

    return run_to_the_end(lambda: asyncio.run(run()))


def load_parts(spec: JobSpec, *, model_folder: Path, silo: str, work_dir: Path | None = None) -> Parts:
    """Load one silo's blocks and the trunk; arguments and errors as of :func:`generate`."""
    folder = ModelFolder.open(model_folder)
    at = spec.silos[0].cut
    cut = folder.cut(bottom_layers=at.bottom_layers, top_layers=at.top_layers)
    silo_adapter = None if spec.silo_blocks == "frozen" else spec.adapter
    if work_dir is None:
        return Parts(load_silo_blocks(folder, cut), load_trunk(folder, cut), 0)
    # What was not trained, such as frozen blocks, is as the job began.
    start = start_of_silo(spec, folder, silo)
    blocks = load_silo_blocks(start.folder if start else folder, cut, adapter=silo_adapter, seed=spec.seed)
    if start:
        start.begin_blocks(blocks, are_frozen=silo_adapter is None)
    trunk = load_started_trunk(spec, folder, cut)
    silo_store = CheckpointStore(work_dir / "silos" / silo / "checkpoints", spec=spec, party=silo)
    trunk_stores = [
        CheckpointStore(work_dir / place / "checkpoints", spec=spec, party=party)
        for party, place in trunk_places(spec).items()
    ]
    round_number = min(store.last_round() for store in (silo_store, *trunk_stores))
    if not round_number:
        raise StorageError(f"{work_dir} holds no finished round of this job for silo {silo!r}; run it first")
    SiloTrainer(blocks, spec=spec, silo=silo, undoable=False).load_state(silo_store.load(round_number))
    TrunkTrainer(trunk, spec=spec).load_state(
        _trunk_state([store.load(round_number) for store in trunk_stores], spec)
    )
    return Parts(blocks, trunk, round_number)


@asynccontextmanager
async def generating(
    spec: JobSpec,
    parts: Parts,
    *,
    silo: str,
    limits: CacheLimits | None = None,
    idle_seconds: float = _IDLE_SECONDS,
    make_lines: Callable[[Sequence[str]], Lines] = Lines,
) -> AsyncIterator[Generation]:
    """Let silo and worker talk for as long as the context is entered.

    Args:
        spec: The job.
        parts: The model.
        silo: The silo's name.
        limits: What the trunk keeps at most.
        idle_seconds: Without a question for so long the trunk ends it.
        make_lines: Makes the link.

    Raises:
        TrunklineError: Either side failed.
    """
    roster, lines = enrol(spec), make_lines([silo])
    async with AsyncExitStack() as stack:
        ours = SiloProtocol(
            roster.terms[silo],
            identity=roster.silos[silo],
            trust=roster.trust,
            codec=Codec(spec.codec),
            served_phases=GENERATION_PHASES,
        )
        theirs = TrunkProtocol(
            roster.terms[silo],
            identity=roster.worker,
            trust=roster.trust,
            codec=Codec(spec.codec),
            served_phases=GENERATION_PHASES,
        )
        silo_compute = await stack.enter_async_context(ComputeThread(f"silo {silo}"))
        trunk_compute = await stack.enter_async_context(ComputeThread("trunk"))
        caches = await trunk_compute(
            TrunkCaches, parts.trunk, limits=limits or CacheLimits(), precision=spec.precision
        )
        exchange = await stack.enter_async_context(_exchange(ours, lines.dial(silo), WORKER_NAME, spec))
        answering = await stack.enter_async_context(
            _exchange(theirs, lines.answer(silo), f"silo {silo!r}", spec)
        )
        served = TrunkGeneration(
            caches=caches,
            exchanges={silo: answering},
            compute=trunk_compute,
            round_number=parts.round,
            idle_seconds=idle_seconds,
        )
        talk = GenerationTalk(
            parts.blocks,
            exchange=exchange,
            compute=silo_compute,
            round_number=parts.round,
            precision=spec.precision,
        )
        serving = asyncio.create_task(served.run())
        try:
            async with talk as generator:
                yield Generation(generator, exchange.traffic, served)
            await serving
        except (LinkError, TrainingError) as error:
            await asyncio.wait({serving}, timeout=_LAST_WORDS_SECONDS)
            cause = _cause(serving)
            if cause is None:
                raise
            raise cause from error
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _trunk_state(states: Sequence[dict[str, Tensor]], spec: JobSpec) -> dict[str, Tensor]:
    """Return the trunk's state; of replicas what they have in common, with the first one's moments."""
    if len(states) == 1:
        return states[0]
    moments = spec.replica_moments
    return state_of_replica(average_replicas(states, moments=moments), states[0], moments=moments)


def _cause(serving: asyncio.Task[bool]) -> BaseException | None:
    """Return what ended the trunk's side; None where it goes on or left in order."""
    is_over = serving.done() and not serving.cancelled()
    return serving.exception() if is_over else None


def _exchange(protocol: Conversation, connect: Connect, peer: str, spec: JobSpec) -> Exchange:
    return Exchange(protocol, connect=connect, peer=peer, patience_seconds=spec.patience_seconds)
