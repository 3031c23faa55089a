"""Small files that are there whole, or as they were before, whatever dies in between."""

import os
import tempfile
from pathlib import Path

from splitlearn.errors import StorageError


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file: temporary file of mode 0600 beside it, fsync, rename, fsync of the folder.

    Raises:
        StorageError: The disk is full, or refused.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; free space or correct its folder's permissions"
        ) from error


def read_if_there(path: Path, *, max_bytes: int) -> bytes | None:
    """Return a file's content, None where there is no file.

    Raises:
        StorageError: It cannot be read, or is longer than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"cannot read {path}: {error.strerror or error}; correct its permissions"
        ) from error
    if len(content) > max_bytes:
        raise StorageError(f"{path} is longer than {max_bytes} bytes; restore it from your backup")
    return content


def flush_folder(folder: Path) -> None:
    """Bring a rename in this folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
