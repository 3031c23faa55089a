"""Child process: the silo of a split run, as an agent would run it."""

import asyncio
from typing import Any

from bench.cases import SILO, batch_plan
from bench.child import end_with_parent, prepare_torch, receive, serve
from bench.clock import StepClock
from bench.counting_link import CountingLink
from bench.documents import Measured, SiloRequest, WorkerListens
from splitlearn.exchange import Exchange
from splitlearn.link import connect_websocket
from splitlearn.parties import ComputeThread, Progress, SiloParty, StepDone, TurnStarted
from splitlearn.partition import ModelFolder, load_silo_blocks
from splitlearn.protocol import SiloProtocol
from splitlearn.spec import JobSpec
from splitlearn.tasks import EvaluationPlan
from splitlearn.training import SiloTrainer
from splitlearn.wire import Codec, Phase


class _Line:
    """The silo's way to the worker, which remembers what crossed it."""

    def __init__(self) -> None:
        self.url = ""
        self._links: list[CountingLink] = []

    async def dial(self) -> CountingLink:
        self._links.append(CountingLink(await connect_websocket(self.url)))
        return self._links[-1]

    def socket_bytes(self) -> int:
        return sum(link.socket_bytes for link in self._links)


class _Notes:
    """Turns the party's progress into step starts: one step begins when the last is done."""

    def __init__(self, clock: StepClock) -> None:
        self._clock = clock
        self.losses: list[float] = []

    def __call__(self, progress: Progress) -> None:
        match progress:
            case TurnStarted(phase=Phase.TRAIN):
                self._clock.step_begins()
            case StepDone():
                self._clock.step_begins()
                self.losses.append(progress.loss)
            case _:
                pass


def run(request: SiloRequest) -> Measured:
    """Take part in the job and return the step times as seen at the silo."""
    prepare_torch(request.task)
    return asyncio.run(_take_part(request))


async def _take_part(request: SiloRequest) -> Measured:
    task = request.task
    line = _Line()
    clock = StepClock(task, count_bytes=line.socket_bytes)
    notes = _Notes(clock)
    data = task.data()
    credentials = request.credentials
    protocol = SiloProtocol(
        credentials.terms(task.spec),
        identity=credentials.identity,
        trust=credentials.trust,
        codec=Codec(task.spec.codec),
    )
    exchange = Exchange(protocol, connect=line.dial, peer=credentials.worker_name)
    async with ComputeThread(SILO) as compute:
        trainer = await compute(_trainer, task.spec, task.model_folder)
        line.url = receive(WorkerListens).url  # the worker loads its model meanwhile
        end_with_parent()
        async with exchange:
            party = SiloParty(
                spec=task.spec,
                silo=SILO,
                trainer=trainer,
                training=batch_plan(task.spec, data),
                evaluation=EvaluationPlan(data.heldout, batch_size=1, pad_token_id=0, max_examples=1),
                exchange=exchange,
                compute=compute,
                on_progress=notes,
            )
            await party.run()
    return clock.measured(notes.losses)


def _trainer(spec: JobSpec, model_folder: Any) -> SiloTrainer:
    folder = ModelFolder.open(model_folder)
    cut = folder.cut(bottom_layers=1, top_layers=1)
    blocks = load_silo_blocks(folder, cut, adapter=spec.adapter, seed=spec.seed)
    return SiloTrainer(blocks, spec=spec, silo=SILO)


if __name__ == "__main__":
    serve(SiloRequest, run)
