"""Folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from safetensors import SafetensorError

from splitlearn.errors import StorageError

_SUFFIX = ".partial"


@contextmanager
def whole_folder(out_dir: Path, *, num_bytes: int) -> Iterator[Path]:
    """Write a folder under a temporary name beside its place; on success sync it and rename it.

    Args:
        out_dir: Where the folder shall be; nothing, or an empty folder, may be there.
        num_bytes: About how much will be written, checked beforehand.

    Yields:
        The temporary folder to write into.

    Raises:
        StorageError: The place is taken, not writable, or has no room. Nothing is left behind.
    """
    try:
        temporary = _begin(out_dir, num_bytes=num_bytes)
    except OSError as error:
        raise _unwritable(out_dir, num_bytes, error.strerror) from error
    try:
        yield temporary
        _sync(temporary)
        temporary.rename(out_dir)
        _sync_folder(out_dir.parent)
    except OSError as error:
        raise _unwritable(out_dir, num_bytes, error.strerror or str(error)) from error
    except SafetensorError as error:  # how its writer reports a full disk
        raise _unwritable(out_dir, num_bytes, str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _begin(out_dir: Path, *, num_bytes: int) -> Path:
    if out_dir.exists() and not (out_dir.is_dir() and next(out_dir.iterdir(), None) is None):
        raise StorageError(f"{out_dir} exists already; move it away or choose another place for the result")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    for left in out_dir.parent.glob(f".{escape(out_dir.name)}.*{_SUFFIX}"):
        shutil.rmtree(
            left, ignore_errors=True
        )  # of a process that was killed: nobody else writes this folder
    free = shutil.disk_usage(out_dir.parent).free
    if free < num_bytes:
        raise _unwritable(out_dir, num_bytes, f"only {free} bytes are free")
    temporary = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=_SUFFIX, dir=out_dir.parent))
    temporary.chmod(0o755)  # mkdtemp's 0700 would outlive the rename
    return temporary


def _unwritable(out_dir: Path, num_bytes: int, why: str | None) -> StorageError:
    return StorageError(
        f"{out_dir} could not be written ({why}); it needs {num_bytes} bytes: "
        f"make room, or choose another place"
    )


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    with suppress(PermissionError):  # a parent that may be written but not opened: the rename still holds
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
