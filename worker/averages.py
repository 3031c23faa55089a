"""The average of a trunk's replicas after a round: made once, by a task of its own, and taken up by each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from splitlearn.control_plane.blobs import describe_file
from splitlearn.control_plane.schemas import BlobRef, LeaseAnswer, RoundToAverage
from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.tasks import LossSum
from splitlearn.training import average_replicas, begun_losses, state_of_replica
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
        at_hand: The others are at other workers.
    """

    spec: JobSpec
    round: int
    average: Path | None
    own: Path | None
    at_hand: None = None

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
    path = await bring_average(home, lease.average, folder)
    return CommittedPeers(spec, lease.checkpoint.round, path, own)


async def bring_average(home: Home, blob: BlobRef, folder: Path) -> Path:
    """Put the average of a round where it is looked for in a job's folder; return its file.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    path = folder / _AVERAGES / blob.digest
    await asyncio.to_thread(keep_only, [path])
    await bring(home, blob, path)
    return path


@dataclass(frozen=True, slots=True)
class Averaged:
    """A round of all replicas.

    Attributes:
        state: Their average.
        begun: What their silos told before step 1, where this is the first round and they were asked.
    """

    state: Mapping[str, Tensor]
    begun: Mapping[str, LossSum] = field(default_factory=dict)


async def average_contributions(home: Home, meeting: RoundToAverage, spec: JobSpec, folder: Path) -> Averaged:
    """Fetch what all replicas have contributed to a round, and average it.

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
    average = await asyncio.to_thread(_average, spec, meeting.round, paths)
    for path in paths:  # the store has each, and together they are large
        await asyncio.to_thread(tidy_up, path)
    return average


def write_average(average: Mapping[str, Tensor], folder: Path) -> Path:
    """Write a round's average, where a replica that is hosted here next looks for it; return its file.

    Raises:
        StorageError: The disk is full.
    """
    place = folder / _AVERAGES
    written = place / "written.safetensors"
    write_tensors(average, written, what="average")
    path = place / describe_file(written).digest
    written.replace(path)
    keep_only([path])
    return path


def _average(spec: JobSpec, round_number: int, paths: Sequence[Path]) -> Averaged:
    contributions = [read_tensors(path, round_number=round_number) for path in paths]
    average = average_replicas(contributions, moments=spec.replica_moments)
    return Averaged(average, begun_losses(contributions, [silo.name for silo in spec.silos]))
