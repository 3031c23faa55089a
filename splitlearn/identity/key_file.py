"""A small file that only its owner may read, written whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path

from splitlearn.errors import StorageError
from splitlearn.identity.errors import ExposedKeyFileError, MalformedKeyFileError

MAX_KEY_FILE_BYTES = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_key_file(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600: temporary file, fsync, rename, fsync of the folder.

    Raises:
        StorageError: The file exists already (a key is never overwritten), or cannot be written.
    """
    try:
        if path.exists():
            raise StorageError(f"{path} exists; a key is never overwritten: move the old file away first")
        _replace(path, content)
    except OSError as error:
        raise StorageError(f"cannot write the key file {path}: {error.strerror or error}") from error


def read_key_file(path: Path) -> bytes:
    """Return the content of a key file.

    Raises:
        StorageError: The file does not exist or cannot be read.
        ExposedKeyFileError: Others than the owner may read or write it, or it belongs to somebody else.
        MalformedKeyFileError: It is no regular file, or longer than 4096 bytes.
    """
    try:
        with path.open("rb", buffering=0) as file:
            _check_status(path, os.fstat(file.fileno()))
            return file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise StorageError(f"cannot read the key file {path}: {error.strerror or error}") from error


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_status(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEY_FILE_BYTES:
        raise MalformedKeyFileError(
            f"{path} is no regular file of at most {MAX_KEY_FILE_BYTES} bytes; restore it from your backup"
        )
    if status.st_mode & _OTHERS:
        raise ExposedKeyFileError(
            f"others may use {path} (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}, "
            "and make a new federation root if somebody may have read it"
        )
    if status.st_uid != os.geteuid():
        raise ExposedKeyFileError(f"{path} belongs to user {status.st_uid}; run: chown {os.geteuid()} {path}")
