"""The trunk's checkpoints: on this machine while it trains, in the artifact store as soon as may be."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitlearn.control_plane.blobs import fetch_blob, send_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import BlobRef, Checkpoint, CommitBody, LeaseAnswer
from splitlearn.errors import StorageError, UnservedError
from splitlearn.parties import BlocksAveraged, RoundTable
from splitlearn.partition import TrunkSegment, segment_state
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore, average_replicas, state_of_replica
from worker.home import Home

STATE_FILE = "state.safetensors"
_RESULT_FILE = "result.safetensors"
_log = structlog.get_logger("worker.trunk")


class LeasedCheckpoints(CheckpointStore):
    """A trunk's checkpoints, of which those count that the control plane has committed.

    Args:
        folder: On this machine; what an older attempt left there is believed by its digest alone.
        spec: The job.
        committed: The newest round that counts, and its file here; None before the first.
        replica: Which trunk's.
    """

    def __init__(
        self, folder: Path, *, spec: JobSpec, committed: tuple[int, Path] | None, replica: int = 0
    ) -> None:
        super().__init__(folder, spec=spec, party=f"trunk-{replica}")
        self._committed = committed

    def last_round(self) -> int:
        """Return the last committed round; 0 before the first."""
        return 0 if self._committed is None else self._committed[0]

    def load(self, round_number: int) -> dict[str, Tensor]:
        """Read a round's state: the committed one's, or an earlier one that lies here.

        Raises:
            StorageError: It is not here, or cannot be read.
        """
        if self._committed is None or self._committed[0] != round_number:
            return super().load(round_number)
        return _read(self._committed[1], round_number)


async def open_checkpoints(home: Home, lease: LeaseAnswer, spec: JobSpec, folder: Path) -> LeasedCheckpoints:
    """Fetch the newest committed checkpoint, if any, and return the trunk's checkpoints.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    own = folder / f"replica-{lease.replica}" if lease.replica else folder
    committed: tuple[int, Path] | None = None
    if lease.checkpoint is not None:
        blob = lease.checkpoint.blob
        path = own / "committed" / blob.digest
        await asyncio.to_thread(_keep_only, [path])
        await home.ask(lambda client: fetch_blob(client, blob, path))
        committed = lease.checkpoint.round, path
    return LeasedCheckpoints(own / "checkpoints", spec=spec, committed=committed, replica=lease.replica)


@dataclass(frozen=True, slots=True)
class CommittedPeers:
    """The other replicas of a trunk as they were after the last round: a :class:`splitlearn.parties.Peers`.

    Attributes:
        spec: The job.
        round: The last round that all have committed; 0 before the first.
        replica: Which one asks.
        paths: What each contributed to the round, in their order.
    """

    spec: JobSpec
    round: int
    replica: int
    paths: tuple[Path, ...]

    async def state_after(self, round_number: int) -> Mapping[str, Tensor]:
        """Return the replica's state with the average of the round in it.

        Raises:
            StorageError: A silo is not as far as the trunk, or a contribution cannot be read.
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
        round_number: int,
        step: int,
    ) -> BlocksAveraged | None:
        """Refuse: a sum over the silos of several workers is not served.

        Raises:
            UnservedError: Always.
        """
        raise UnservedError(
            f"silo_blocks: 'averaged' is not served with schedule {self.spec.schedule!r} on the platform "
            f"(round {round_number}, step {step}); use 'local'"
        )

    def _state(self) -> dict[str, Tensor]:
        contributions = [_read(path, self.round) for path in self.paths]
        moments = self.spec.replica_moments
        average = average_replicas(contributions, moments=moments)
        return state_of_replica(average, contributions[self.replica], moments=moments)


async def meet_peers(home: Home, lease: LeaseAnswer, spec: JobSpec, folder: Path) -> CommittedPeers | None:
    """Fetch what the replicas have contributed to the last round; None for a trunk without replicas.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    if len(spec.shares) == 1:
        return None
    place = folder / f"replica-{lease.replica}" / "contributions"
    paths = [place / blob.digest for blob in lease.contributions]
    await asyncio.to_thread(_keep_only, paths)
    for blob, path in zip(lease.contributions, paths, strict=True):
        await home.ask(partial(_fetch, blob=blob, path=path))
    number = 0 if lease.checkpoint is None else lease.checkpoint.round
    return CommittedPeers(spec, number, lease.replica, tuple(paths))


async def _fetch(client: PartyClient, *, blob: BlobRef, path: Path) -> Path:
    return await fetch_blob(client, blob, path)


def _read(path: Path, round_number: int) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the checkpoint of round {round_number} cannot be read: {error}; "
            "retry the job from an earlier round"
        ) from error
    return tensors


class RoundPublisher:
    """Uploads each round's checkpoint and commits it under the lease's epoch.

    Args:
        home: The control plane's thread.
        lease: Of this attempt.
    """

    def __init__(self, home: Home, lease: LeaseAnswer) -> None:
        self._home, self._lease = home, lease
        self._since = time.monotonic()

    async def __call__(self, round_number: int, folder: Path) -> None:
        """Publish a round; a lost lease refuses it."""
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        await self._home.ask(lambda client: self._publish(client, round_number, folder, seconds))

    async def _publish(self, client: PartyClient, round_number: int, folder: Path, seconds: float) -> None:
        blob = await send_blob(client, folder / STATE_FILE)
        body = CommitBody(
            epoch=self._lease.epoch, checkpoint=Checkpoint(round=round_number, blob=blob), seconds=seconds
        )
        await client.commit_round(self._lease.job, self._lease.replica, body)


async def publish_result(home: Home, trunk: TrunkSegment, folder: Path) -> BlobRef:
    """Upload the trunk's trained tensors.

    Raises:
        StorageError: The disk is full.
        RefusedError: The store is full.
    """
    path = folder / _RESULT_FILE
    await asyncio.to_thread(_write_result, segment_state(trunk), path)
    try:
        return await home.ask(lambda client: send_blob(client, path))
    finally:
        _tidy_up(path)


def _write_result(state: Mapping[str, Tensor], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write the result {path}: {error}; free space, then retry the job"
        ) from error


def _tidy_up(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # the result is in the store: what is left here takes nothing away from it
        _log.warning("tidying_failed", path=str(path), reason=error.strerror)


def _keep_only(paths: Sequence[Path]) -> None:
    """Delete committed checkpoints of earlier rounds."""
    kept = {path.name for path in paths}
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            for other in folder.iterdir():
                if other.name.partition(".")[0] not in kept:
                    other.unlink(missing_ok=True)
