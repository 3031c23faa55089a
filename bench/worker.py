"""Child process: the worker that hosts the trunk of a split run."""

import asyncio

from bench.cases import SILO
from bench.child import answer, end_with_parent, prepare_torch, serve
from bench.clock import StepClock
from bench.documents import WorkerAnswer, WorkerListens, WorkerRequest
from splitlearn.exchange import Exchange
from splitlearn.link import Link, WebsocketListener
from splitlearn.parties import ComputeThread, TrunkParty
from splitlearn.partition import ModelFolder, TrunkSegment, load_trunk
from splitlearn.planning import Cut
from splitlearn.protocol import TrunkProtocol
from splitlearn.spec import JobSpec
from splitlearn.training import TrunkTrainer
from splitlearn.wire import Codec


class _Doorstep:
    """Where incoming connections wait to be taken up."""

    def __init__(self) -> None:
        self._links: asyncio.Queue[Link] = asyncio.Queue()
        self._over = asyncio.Event()

    async def accept(self, link: Link) -> None:
        self._links.put_nowait(link)
        await self._over.wait()

    async def take(self) -> Link:
        return await self._links.get()

    def close(self) -> None:
        self._over.set()


class _ClockedTrainer(TrunkTrainer):
    """A trunk that notes when its steps begin."""

    def __init__(self, segment: TrunkSegment, *, spec: JobSpec, clock: StepClock) -> None:
        super().__init__(segment, spec=spec)
        self._clock = clock

    def begin_step(self, step: int, *, num_label_tokens: int) -> None:
        self._clock.step_begins()
        super().begin_step(step, num_label_tokens=num_label_tokens)


def run(request: WorkerRequest) -> WorkerAnswer:
    """Listen, say where, and lead the job to its end."""
    end_with_parent()
    prepare_torch(request.task)
    return asyncio.run(_lead(request))


async def _lead(request: WorkerRequest) -> WorkerAnswer:
    task = request.task
    clock = StepClock(task)
    folder = ModelFolder.open(task.model_folder)
    cut = folder.cut(bottom_layers=1, top_layers=1)
    doorstep = _Doorstep()
    async with ComputeThread("trunk") as compute, WebsocketListener(doorstep.accept) as listener:
        trainer = await compute(_trainer, task.spec, folder, cut, clock)
        answer(WorkerListens(url=listener.url))
        async with _exchange(request, doorstep) as exchange:
            party = TrunkParty(spec=task.spec, trainer=trainer, exchanges={SILO: exchange}, compute=compute)
            await party.run()
        doorstep.close()
    return WorkerAnswer(cpu_seconds=clock.cpu_seconds)


def _trainer(spec: JobSpec, folder: ModelFolder, cut: Cut, clock: StepClock) -> _ClockedTrainer:
    trunk = load_trunk(folder, cut, adapter=spec.adapter, seed=spec.seed)
    return _ClockedTrainer(trunk, spec=spec, clock=clock)


def _exchange(request: WorkerRequest, doorstep: _Doorstep) -> Exchange:
    spec, credentials = request.task.spec, request.credentials
    protocol = TrunkProtocol(
        credentials.terms(spec),
        identity=credentials.identity,
        trust=credentials.trust,
        codec=Codec(spec.codec),
    )
    return Exchange(protocol, connect=doorstep.take, peer=f"silo {SILO!r}")


if __name__ == "__main__":
    serve(WorkerRequest, run)
