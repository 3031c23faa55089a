"""The trunk's checkpoints: on this machine while it trains, in the artifact store as soon as may be."""

import asyncio
import time
from pathlib import Path

from torch import Tensor

from splitlearn.control_plane.blobs import send_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import BlobRef, Checkpoint, CommitBody, LeaseAnswer
from splitlearn.partition import TrunkSegment, segment_state
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore
from worker.home import Home
from worker.stored_files import (
    STATE_FILE,
    bring,
    keep_only,
    place_of,
    read_tensors,
    saved_round,
    tidy_up,
    write_tensors,
)

_RESULT_FILE = "result.safetensors"


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

    @property
    def committed_file(self) -> Path | None:
        """The newest committed round's; None before the first."""
        return None if self._committed is None else self._committed[1]

    def load(self, round_number: int) -> dict[str, Tensor]:
        """Read a round's state: the committed one's, or an earlier one that lies here.

        Raises:
            StorageError: It is not here, or cannot be read.
        """
        if self._committed is None or self._committed[0] != round_number:
            return super().load(round_number)
        return read_tensors(self._committed[1], round_number=round_number)


async def open_checkpoints(home: Home, lease: LeaseAnswer, spec: JobSpec, folder: Path) -> LeasedCheckpoints:
    """Fetch the newest committed checkpoint, if any, and return the trunk's checkpoints.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    own = place_of(folder, lease.replica)
    committed: tuple[int, Path] | None = None
    if lease.checkpoint is not None:
        number, blob = lease.checkpoint.round, lease.checkpoint.blob
        path = own / "committed" / blob.digest
        await asyncio.to_thread(keep_only, [path])
        await bring(home, blob, path, at_hand=saved_round(folder, lease.replica, number))
        committed = number, path
    return LeasedCheckpoints(own / "checkpoints", spec=spec, committed=committed, replica=lease.replica)


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
        """Publish a round's checkpoint; a lost lease refuses it."""
        await self.publish(round_number, folder / STATE_FILE)

    async def publish(self, round_number: int, file: Path) -> None:
        """Publish what a round came to; a lost lease refuses it."""
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        await self._home.ask(lambda client: self._publish(client, round_number, file, seconds))

    async def _publish(self, client: PartyClient, round_number: int, file: Path, seconds: float) -> None:
        blob = await send_blob(client, file)
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
    await asyncio.to_thread(write_tensors, segment_state(trunk), path, what="result")
    try:
        return await home.ask(lambda client: send_blob(client, path))
    finally:
        tidy_up(path)
