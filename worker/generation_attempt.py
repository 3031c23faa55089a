"""One attempt to host a trunk for a silo that generates: from the signed specification to its farewell."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from splitlearn.channel import Terms
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.generation_schemas import GenerationLease
from splitlearn.errors import StorageError
from splitlearn.exchange import Exchange
from splitlearn.generation import CacheLimits, TrunkCaches, TrunkGeneration
from splitlearn.parties import ComputeThread
from splitlearn.partition import TrunkSegment, load_segment_state
from splitlearn.protocol import GENERATION_PHASES, TrunkProtocol
from splitlearn.spec import JobSpec
from splitlearn.wire import Codec
from worker.fetching import fetch_demand
from worker.generation_keeper import Progress
from worker.memory import Demand, explain_out_of_memory, is_out_of_memory
from worker.station import Station
from worker.stored_files import bring, keep_only
from worker.trunk_cache import TrunkCache
from worker.verification import vouched_spec

P = ParamSpec("P")
R = TypeVar("R")
_log = structlog.get_logger("worker.generation")


class GenerationAttempt:
    """Hosts one session once.

    Args:
        station: The worker.
        lease: With whom, with which job's result.
        limits: Of the caches.
    """

    def __init__(self, station: Station, lease: GenerationLease, *, limits: CacheLimits) -> None:
        self._station, self._lease, self._limits = station, lease, limits
        self._served: TrunkGeneration | None = None
        self._asked_at = time.monotonic()

    @property
    def progress(self) -> Progress:
        """How it goes; may be asked for from any thread."""
        num_tokens = 0 if self._served is None else self._served.num_tokens
        return Progress(num_tokens, max(0.0, time.monotonic() - self._asked_at))

    async def run(self) -> bool:
        """Serve until the silo leaves, or asks nothing for too long.

        Returns:
            Whether it left.

        Raises:
            TrunklineError: The trunk cannot be loaded, or the conversation failed.
        """
        station, lease = self._station, self._lease
        spec = await vouched_spec(
            lease,
            trust=station.state.trust,
            ask_again=lambda: station.home.ask(
                lambda client: client.take_generation(lease.generation, lease.epoch)
            ),
        )
        demand = await fetch_demand(station, spec)
        result = await self._fetch_result()
        try:
            return await self._serve(demand, result)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            station.trunks.clear()
            raise explain_out_of_memory(demand, station.describe_devices()) from error

    async def _serve(self, demand: Demand, result: Path) -> bool:
        spec, lease = demand.spec, self._lease
        async with AsyncExitStack() as stack:
            compute = await stack.enter_async_context(
                ComputeThread("trunk", patience_seconds=spec.patience_seconds)
            )
            trunk = await compute(trained_trunk, self._station.trunks, demand, result)
            caches = await compute(lambda: TrunkCaches(trunk, limits=self._limits, precision=spec.precision))
            exchange = await stack.enter_async_context(self._exchange(spec))
            _log.info("generation_hosted", silo=lease.silo, round=lease.round)
            self._asked_at = time.monotonic()
            self._served = TrunkGeneration(
                caches=caches,
                exchanges={lease.silo: exchange},
                compute=_Noting(compute, self._asked),
                round_number=lease.round,
                idle_seconds=lease.idle_seconds,
            )
            return await self._served.run()

    def _asked(self) -> None:
        self._asked_at = time.monotonic()

    async def _fetch_result(self) -> Path:
        path = self._station.state.path / "results" / self._lease.result.digest
        await asyncio.to_thread(keep_only, [path])
        await bring(self._station.home, self._lease.result, path)
        return path

    def _exchange(self, spec: JobSpec) -> Exchange:
        lease, identity = self._lease, self._station.state.identity()
        terms = Terms(
            job_id=lease.generation,
            replica=0,
            epoch=lease.epoch,
            spec_digest=spec.digest(),
            silo_name=lease.silo,
            worker_name=identity.certificate.name,
        )
        connect = gateway_connector(
            self._station.home, job=lease.generation, replica=0, epoch=lease.epoch, silo=lease.silo
        )
        protocol = TrunkProtocol(
            terms,
            identity=identity,
            trust=self._station.state.trust(),
            codec=Codec(spec.codec),
            served_phases=GENERATION_PHASES,
        )
        return Exchange(
            protocol, connect=connect, peer=f"silo {lease.silo!r}", patience_seconds=lease.idle_seconds
        )


class _Noting:
    """Runs functions in a thread, and notes when each began and ended: only a question needs one.

    Args:
        compute: The thread.
        note: Called.
    """

    def __init__(self, compute: ComputeThread, note: Callable[[], None]) -> None:
        self._compute, self._note = compute, note

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._note()
        try:
            return await self._compute(function, *args, **kwargs)
        finally:
            self._note()


def trained_trunk(trunks: TrunkCache, demand: Demand, result: Path) -> TrunkSegment:
    """Return a job's trunk with what the job trained.

    A trunk with an adapter stays loaded for the next attempt, and whoever gets it next finds its adapter's
    first values; one that was trained whole is loaded anew each time.

    Raises:
        StorageError: The result cannot be read, or is another job's.
        TrunkTooLargeError: The trunk does not fit.
    """
    state = _read(result)
    trunk = trunks.get(demand)
    load_segment_state(trunk, state)
    return trunk


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the job's result {path} cannot be read ({error}); free memory or disk"
        ) from error
    return tensors
