"""The trunk's checkpoints: on this machine while it trains, in the artifact store as soon as may be."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitlearn.control_plane.blobs import fetch_blob, send_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import BlobRef, Checkpoint, CommitBody, LeaseAnswer
from splitlearn.errors import StorageError
from splitlearn.partition import TrunkSegment, segment_state
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore
from worker.home import Home

TRUNK_PARTY = "trunk-0"
STATE_FILE = "state.safetensors"
_RESULT_FILE = "result.safetensors"
_log = structlog.get_logger("worker.trunk")


class LeasedCheckpoints(CheckpointStore):
    """A trunk's checkpoints, of which those count that the control plane has committed.

    Args:
        folder: On this machine; what an older attempt left there is believed by its digest alone.
        spec: The job.
        committed: The newest round that counts, and its file here; None before the first.
    """

    def __init__(self, folder: Path, *, spec: JobSpec, committed: tuple[int, Path] | None) -> None:
        super().__init__(folder, spec=spec, party=TRUNK_PARTY)
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
        try:
            tensors: dict[str, Tensor] = load_file(self._committed[1])
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"the checkpoint of round {round_number} cannot be read: {error}; "
                "retry the job from an earlier round"
            ) from error
        return tensors


async def open_checkpoints(home: Home, lease: LeaseAnswer, spec: JobSpec, folder: Path) -> LeasedCheckpoints:
    """Fetch the newest committed checkpoint, if any, and return the trunk's checkpoints.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    committed: tuple[int, Path] | None = None
    if lease.checkpoint is not None:
        blob = lease.checkpoint.blob
        path = folder / "committed" / blob.digest
        await asyncio.to_thread(_keep_only, path)
        await home.ask(lambda client: fetch_blob(client, blob, path))
        committed = lease.checkpoint.round, path
    return LeasedCheckpoints(folder / "checkpoints", spec=spec, committed=committed)


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


def _keep_only(path: Path) -> None:
    """Delete committed checkpoints of earlier rounds."""
    if path.parent.is_dir():
        for other in path.parent.iterdir():
            if other.name.partition(".")[0] != path.name:
                other.unlink(missing_ok=True)
