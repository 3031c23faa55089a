"""The worker's side of a simulated federation: one trunk, or replicas that meet at each round's end."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from splitlearn.exchange import Exchange
from splitlearn.link import Connect
from splitlearn.parties import ComputeThread, OnProgress, TrunkParty
from splitlearn.partition import TrunkSegment
from splitlearn.protocol import TrunkProtocol
from splitlearn.simulation.replicas import ReplicaHall
from splitlearn.simulation.roster import WORKER_NAME, Roster
from splitlearn.simulation.together import Run
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore, TrunkTrainer, replica_party
from splitlearn.wire import Codec


def trunk_party(replica: int) -> str:
    """Return how a trunk is called in its checkpoints."""
    return f"trunk-{replica}"


def trunk_places(spec: JobSpec) -> dict[str, str]:
    """Return the folder of each trunk in a run's folder, by party."""
    replicas = range(len(spec.shares))
    if len(replicas) == 1:
        return {trunk_party(0): "worker"}
    return {trunk_party(replica): f"worker/replica-{replica}" for replica in replicas}


class AnswersSilos(Protocol):
    """Links that silos dial."""

    def answer(self, name: str) -> Connect:
        """Return how the worker awaits this silo."""


@dataclass(frozen=True)
class TrunkSide:
    """All that the trunks of one process share.

    Attributes:
        spec: The job.
        roster: Who takes part.
        lines: Links to the silos.
        present: Silos that are not lost.
        checkpoints: Returns a replica's.
        on_progress: Told of everything; must not block.
        parties: Of each trunk, once they are made, in the replicas' order.
    """

    spec: JobSpec
    roster: Roster
    lines: AnswersSilos
    present: Sequence[str]
    checkpoints: Callable[[int], CheckpointStore]
    on_progress: OnProgress
    parties: list[TrunkParty] = field(default_factory=list)

    async def runs(self, stack: AsyncExitStack, trunks: Sequence[TrunkSegment]) -> list[Run]:
        """Return what is to be run for each trunk, its conversations begun and its thread given out.

        Args:
            stack: What is begun is ended with it.
            trunks: One for each replica.
        """
        if len(trunks) == 1:
            return [(await self._party(stack, trunks[0], 0, hall=None)).run]
        hall = ReplicaHall(self.spec, [self.checkpoints(replica) for replica in range(len(trunks))])
        parties = [
            await self._party(stack, trunk, replica, hall=hall) for replica, trunk in enumerate(trunks)
        ]
        return [hall.present(party.replica, party.run) for party in parties]

    async def _party(
        self, stack: AsyncExitStack, trunk: TrunkSegment, replica: int, *, hall: ReplicaHall | None
    ) -> TrunkParty:
        exchanges = {
            name: await stack.enter_async_context(self._exchange(name))
            for name in self.spec.shares[replica]
            if name in self.present
        }
        thread = WORKER_NAME if hall is None else f"replica {replica}"
        party = TrunkParty(
            spec=self.spec,
            trainer=TrunkTrainer(trunk, spec=self.spec, party=replica_party(replica)),
            exchanges=exchanges,
            compute=await stack.enter_async_context(ComputeThread(thread)),
            checkpoints=self.checkpoints(replica),
            on_progress=self.on_progress,
            replica=replica,
            peers=None if hall is None else hall.seat(replica),
        )
        self.parties.append(party)
        return party

    def _exchange(self, silo: str) -> Exchange:
        roster = self.roster
        protocol = TrunkProtocol(
            roster.terms[silo],
            identity=roster.worker,
            trust=roster.trust,
            codec=Codec(self.spec.codec),
        )
        return Exchange(
            protocol,
            connect=self.lines.answer(silo),
            peer=f"silo {silo!r}",
            patience_seconds=self.spec.patience_seconds,
        )
