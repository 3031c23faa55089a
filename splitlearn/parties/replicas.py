"""What a trunk that is one of several replicas asks of the others, once per round."""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from splitlearn.parties.progress import BlocksAveraged
from splitlearn.parties.round_table import RoundTable
from splitlearn.tasks import LossSum
from splitlearn.wire import Message


class Conversations(Protocol):
    """Somebody who can speak with silos: one worker's table, or those of several together."""

    async def send(self, name: str, message: Message) -> None:
        """Say something to one silo."""

    async def next(self, due: Collection[str]) -> tuple[str, Message]:
        """Return the next message of any of the silos that are due."""


class Peers(Protocol):
    """The other replicas of a trunk, as one of them meets them at a round's end."""

    @property
    def at_hand(self) -> "PeersAtHand | None":
        """What they can do together in mid-conversation; None where they are hosted by several workers.

        These meet under a lease of its own, with all silos of the job
        (:class:`splitlearn.parties.MeetingParty`), and a replica takes up what came of it.
        """

    async def state_after(self, round_number: int) -> Mapping[str, Tensor]:
        """Wait until every replica has committed a round; return this one's state with the average in it.

        Args:
            round_number: This replica's own last round. To ask says that it is committed.

        Raises:
            TrainingError: Another replica ended before it had committed the round.
            StorageError: A contribution to the round cannot be read.
        """


class PeersAtHand(Protocol):
    """The other replicas of a trunk, where one process has them all."""

    async def sum_blocks(self, table: RoundTable, *, round_number: int, step: int) -> BlocksAveraged | None:
        """Wait until every replica is there, and average the blocks of all silos of the job.

        Args:
            table: This replica's conversations.
            round_number: From 1.
            step: Steps of each silo in the round.

        Returns:
            What there is to report of it, at one of the replicas; None at the others.

        Raises:
            TrainingError: Another replica, or a silo, ended before.
        """

    async def losses_of_all(self, round_number: int, losses: Mapping[str, LossSum]) -> Mapping[str, LossSum]:
        """Wait until the silos of every replica have evaluated a round; return what all of them told.

        Args:
            round_number: The round; 0 for what the job begins with.
            losses: What this replica's silos told, by name.

        Raises:
            TrainingError: Another replica ended before.
        """


class JoinedTables:
    """Several workers' conversations as if they were one's; see :class:`Conversations`.

    Args:
        tables: By silo.
    """

    def __init__(self, tables: Mapping[str, RoundTable]) -> None:
        self._tables = dict(tables)
        self._heard: deque[tuple[str, Message]] = deque()

    async def send(self, name: str, message: Message) -> None:
        """Say something to one silo; errors as of its table."""
        await self._tables[name].send(name, message)

    async def next(self, due: Collection[str]) -> tuple[str, Message]:
        """Return the next message of any of the silos that are due; errors as of their tables."""
        for index, (name, message) in enumerate(self._heard):
            if name in due:
                del self._heard[index]
                return name, message
        self._heard.extend(await self._hear(due))
        return await self.next(due)

    async def _hear(self, due: Collection[str]) -> Sequence[tuple[str, Message]]:
        """Listen at all tables until one has heard something."""
        tables = {id(self._tables[name]): self._tables[name] for name in due}
        listening = [
            asyncio.create_task(table.next([name for name in due if self._tables[name] is table]))
            for table in tables.values()
        ]
        try:
            await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in listening:
                task.cancel()
            outcomes = await asyncio.gather(*listening, return_exceptions=True)
        # A table that is told to stop listening has either handed its message over, or keeps it.
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
