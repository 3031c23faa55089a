"""Where the trunk replicas of one process meet at a round's end: average of the trunks, sum of the blocks."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from splitlearn.errors import TrainingError
from splitlearn.parties import BlocksAveraged, JoinedTables, RoundTable, average_at_trunk
from splitlearn.simulation.together import Run
from splitlearn.spec import JobSpec
from splitlearn.tasks import LossSum
from splitlearn.training import CheckpointStore, average_replicas, state_of_replica


class ReplicaHall:
    """The meeting place. The checkpoints on the disk are what is averaged, also after a restart.

    Args:
        spec: The job.
        stores: Each replica's checkpoints.
    """

    def __init__(self, spec: JobSpec, stores: Sequence[CheckpointStore]) -> None:
        self._spec, self._stores = spec, tuple(stores)
        self._committed = [0] * len(self._stores)
        self._averages: dict[int, asyncio.Future[dict[str, Tensor]]] = {}
        self._tables: dict[int, RoundTable] = {}
        self._num_sums = 0
        self._losses: dict[int, dict[int, Mapping[str, LossSum]]] = {}
        self._gone: int | None = None
        self._changed = asyncio.Event()

    def seat(self, replica: int) -> "Seat":
        """Return one replica's place; see :class:`splitlearn.parties.Peers`."""
        return Seat(self, replica)

    def present(self, replica: int, run: Run) -> Run:
        """Return a replica's run; where it fails, nobody waits for the replica any longer."""

        async def attended() -> None:
            try:
                await run()
            except BaseException:
                self._gone = replica
                self._tell()
                raise

        return attended

    async def state_after(self, replica: int, round_number: int) -> Mapping[str, Tensor]:
        """Return a replica's state after a round, once all have committed it.

        Raises:
            TrainingError: Another replica ended before.
            StorageError: A contribution cannot be read.
        """
        self._committed[replica] = max(self._committed[replica], round_number)
        self._tell()
        await self._until(lambda: min(self._committed) >= round_number)
        if round_number not in self._averages:
            # No replica needs an earlier one: each took it before it trained the round that all now have.
            working = asyncio.create_task(asyncio.to_thread(self._average, round_number))
            self._averages = {round_number: working}
        average = await asyncio.shield(self._averages[round_number])
        own = await asyncio.to_thread(self._stores[replica].load, round_number)
        return state_of_replica(average, own, moments=self._spec.replica_moments)

    async def sum_blocks(
        self, replica: int, table: RoundTable, *, round_number: int, step: int
    ) -> BlocksAveraged | None:
        """Lead one sum over all silos of the job, at the replica that comes last.

        Raises:
            TrainingError: Another replica, or a silo, ended before.
        """
        self._tables[replica] = table
        if len(self._tables) < len(self._stores):
            number = self._num_sums
            await self._until(lambda: self._num_sums > number)
            return None
        tables, self._tables = self._tables, {}
        names = [silo.name for silo in self._spec.silos]
        joined = JoinedTables({name: tables[self._spec.replica_of(name)] for name in names})
        summed = await average_at_trunk(joined, names, round_number=round_number, step=step)
        self._num_sums += 1
        self._tell()
        return summed

    async def losses_of_all(
        self, replica: int, round_number: int, losses: Mapping[str, LossSum]
    ) -> Mapping[str, LossSum]:
        """Return what all silos told of a round, once every replica has evaluated it.

        Raises:
            TrainingError: Another replica ended before.
        """
        told = self._losses.setdefault(round_number, {})
        told[replica] = losses
        self._tell()
        await self._until(lambda: len(told) == len(self._stores))
        self._losses.pop(round_number, None)
        return {name: loss for each in told.values() for name, loss in each.items()}

    def _average(self, round_number: int) -> dict[str, Tensor]:
        contributions = [store.load(round_number) for store in self._stores]
        return average_replicas(contributions, moments=self._spec.replica_moments)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._gone is not None:
                raise TrainingError(
                    f"replica {self._gone} of the trunk ended before the others' round; its error says why"
                )
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(frozen=True)
class Seat:
    """One replica's place in the hall; a :class:`splitlearn.parties.Peers`, with all others at hand."""

    hall: ReplicaHall
    replica: int

    @property
    def at_hand(self) -> "Seat":
        """The others are in the same hall."""
        return self

    async def state_after(self, round_number: int) -> Mapping[str, Tensor]:
        """See :meth:`ReplicaHall.state_after`."""
        return await self.hall.state_after(self.replica, round_number)

    async def sum_blocks(self, table: RoundTable, *, round_number: int, step: int) -> BlocksAveraged | None:
        """See :meth:`ReplicaHall.sum_blocks`."""
        return await self.hall.sum_blocks(self.replica, table, round_number=round_number, step=step)

    async def losses_of_all(self, round_number: int, losses: Mapping[str, LossSum]) -> Mapping[str, LossSum]:
        """See :meth:`ReplicaHall.losses_of_all`."""
        return await self.hall.losses_of_all(self.replica, round_number, losses)
