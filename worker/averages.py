"""The average of a trunk's replicas after a round: made once, by a task of its own, and taken up by each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from splitlearn.control_plane.blobs import describe_file
from splitlearn.control_plane.schemas import LeaseAnswer, RoundToAverage
from splitlearn.errors import StorageError
from splitlearn.parties import BlocksAveraged, RoundTable
from splitlearn.spec import JobSpec
from splitlearn.training import average_replicas, state_of_replica
from worker.home import Home
from worker.stored_files import bring, keep_only, read_tensors, saved_round, tidy_up, write_tensors

_AVERAGES, _CONTRIBUTIONS = "averages", "contributions"


@dataclass(frozen=True, slots=True)
class CommittedPeers:
    """The other replicas of a trunk as they were after the last round: a :class:`splitlearn.parties.Peers`.

    Attributes:
        spec: The job.
        round: The last round that was averaged; 0 before the first.
        average: What all replicas have in common after it; None before the first.
        own: What this one contributed; None before the first.
    """

    spec: JobSpec
    round: int
    average: Path | None
    own: Path | None

    async def state_after(self, round_number: int) -> Mapping[str, Tensor]:
        """Return the replica's state with the average of the round in it.

        Raises:
            StorageError: A silo is not as far as the trunk, or a checkpoint cannot be read.
        """
        if round_number != self.round:
            raise StorageError(
                f"a silo has no checkpoint after round {round_number}, the trunk's replicas are at round "
                f"{self.round}; retry the job from an earlier round that is kept: trunkline jobs retry"
            )
        return await asyncio.to_thread(self._state)

    async def sum_blocks(
        self,
        table: RoundTable,  # noqa: ARG002 - the protocol's
        *,
        round_number: int,  # noqa: ARG002
        step: int,  # noqa: ARG002
    ) -> BlocksAveraged | None:
        """Leave that to the meeting, where the silos of all replicas are."""
        return None

    def _state(self) -> dict[str, Tensor]:
        assert self.average is not None, "a round was averaged"
        assert self.own is not None, "and this replica had a part in it"
        average = read_tensors(self.average, round_number=self.round)
        own = read_tensors(self.own, round_number=self.round)
        return state_of_replica(average, own, moments=self.spec.replica_moments)


async def meet_peers(
    home: Home, lease: LeaseAnswer, spec: JobSpec, folder: Path, *, own: Path | None
) -> CommittedPeers | None:
    """Fetch the average of the last round; None for a trunk without replicas.

    Args:
        home: The control plane's thread.
        lease: Of this attempt.
        spec: The job.
        folder: The job's, on this machine.
        own: What this replica contributed to the round.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    if len(spec.shares) == 1:
        return None
    if lease.checkpoint is None or lease.average is None:
        return CommittedPeers(spec, 0, None, None)
    path = folder / _AVERAGES / lease.average.digest
    await asyncio.to_thread(keep_only, [path])
    await bring(home, lease.average, path)
    return CommittedPeers(spec, lease.checkpoint.round, path, own)


async def average_contributions(home: Home, meeting: RoundToAverage, spec: JobSpec, folder: Path) -> Path:
    """Fetch what all replicas have contributed to a round, and average it; return the average's file.

    Raises:
        StorageError: The disk is full, or a contribution is damaged or missing.
    """
    if len(meeting.contributions) != len(spec.shares):
        raise StorageError(
            f"round {meeting.round} has {len(meeting.contributions)} contributions, the job has "
            f"{len(spec.shares)} replicas; retry the job from an earlier round that is kept"
        )
    paths = [folder / _CONTRIBUTIONS / blob.digest for blob in meeting.contributions]
    await asyncio.to_thread(keep_only, paths)
    for replica, (blob, path) in enumerate(zip(meeting.contributions, paths, strict=True)):
        await bring(home, blob, path, at_hand=saved_round(folder, replica, meeting.round))
    average = await asyncio.to_thread(_average, spec, meeting.round, paths, folder / _AVERAGES)
    for path in paths:  # the store has each, and together they are large
        await asyncio.to_thread(tidy_up, path)
    return average


def _average(spec: JobSpec, round_number: int, paths: Sequence[Path], place: Path) -> Path:
    contributions = [read_tensors(path, round_number=round_number) for path in paths]
    written = place / "written.safetensors"
    average = average_replicas(contributions, moments=spec.replica_moments)
    write_tensors(average, written, what="average")
    # Under its digest a replica that is hosted here next looks for it.
    path = place / describe_file(written).digest
    written.replace(path)
    keep_only([path])
    return path
