"""Files of a job on this machine that hold tensors, each the same as a blob of the artifact store."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitlearn.control_plane.blobs import describe_file, fetch_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import StorageError
from worker.home import Home

STATE_FILE = "state.safetensors"
_DAY_SECONDS = 86_400.0
_log = structlog.get_logger("worker.trunk")


def place_of(folder: Path, replica: int) -> Path:
    """Return a replica's folder in a job's."""
    return folder / f"replica-{replica}" if replica else folder


def saved_round(folder: Path, replica: int, round_number: int) -> Path:
    """Return where a replica's round lies, if it was trained on this machine."""
    return place_of(folder, replica) / "checkpoints" / f"round-{round_number:08d}" / STATE_FILE


async def bring(home: Home, blob: BlobRef, path: Path, *, at_hand: Path | None = None) -> None:
    """Put a blob's content where it is looked for.

    Args:
        home: The control plane's thread.
        blob: Of the store.
        path: The file; nothing is done where it is there.
        at_hand: A file of this machine that may hold the same; it saves the download.

    Raises:
        StorageError: The disk is full, or what came is damaged.
    """
    if at_hand is not None:
        await asyncio.to_thread(_take_over, at_hand, blob, path)
    await home.ask(partial(_fetch, blob=blob, path=path))


def read_tensors(path: Path, *, round_number: int) -> dict[str, Tensor]:
    """Read what was committed of a round.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the checkpoint of round {round_number} cannot be read: {error}; "
            "retry the job from an earlier round"
        ) from error
    return tensors


def write_tensors(state: Mapping[str, Tensor], path: Path, *, what: str) -> None:
    """Write tensors to a file.

    Raises:
        StorageError: The disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write the {what} {path}: {error}; free space, then retry the job"
        ) from error


def tidy_up(path: Path) -> None:
    """Delete a file whose content is in the store; what cannot be deleted takes nothing away from that."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("tidying_failed", path=str(path), reason=error.strerror)


def drop_folder(folder: Path) -> None:
    """Delete a job's folder, all of which is in the store; what cannot be deleted is tried again later."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("tidying_failed", path=str(folder), reason=error.strerror)


def drop_idle_folders(parent: Path, *, days: float) -> None:
    """Delete folders in which nothing was written for so long: of jobs that ended while nobody was here."""
    oldest = time.time() - days * _DAY_SECONDS
    for folder in parent.iterdir() if parent.is_dir() else ():
        if max(path.lstat().st_mtime for path in (folder, *folder.rglob("*"))) < oldest:
            drop_folder(folder)


def keep_only(paths: Sequence[Path]) -> None:
    """Delete all other files of the folders of these, but for what is left of their downloads."""
    kept = {path.name for path in paths}
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            for other in folder.iterdir():
                if other.name.partition(".")[0] not in kept:
                    other.unlink(missing_ok=True)


def _take_over(source: Path, blob: BlobRef, path: Path) -> None:
    """Give a file that holds a blob a second name; where it does not, or the disk refuses, it is fetched."""
    with contextlib.suppress(OSError, StorageError):
        if not path.exists() and source.stat().st_size == blob.num_bytes and describe_file(source) == blob:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(source)


async def _fetch(client: PartyClient, *, blob: BlobRef, path: Path) -> Path:
    return await fetch_blob(client, blob, path)
