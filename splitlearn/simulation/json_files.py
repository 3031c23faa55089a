"""JSON files that appear whole or not at all. Torch-free."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitlearn.errors import StorageError


def write_json(path: Path, content: Mapping[str, Any], *, mode: int = 0o644) -> None:
    """Write a JSON object, in place of a file that is there; of a link, in place of what it leads to.

    Args:
        path: The file.
        content: The object.
        mode: The file's permissions; while it is written, nobody but its owner can read it.

    Raises:
        StorageError: The file cannot be written; what was there before stays.
    """
    path = _target(path)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path, text)
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """Find out beforehand whether :func:`write_json` will be able to write.

    Raises:
        StorageError: It will not.
    """
    path = _target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _temporary(path, "").unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _target(path: Path) -> Path:
    """Follow links; refuse what a rename must not replace: a device's name would be gone for everybody."""
    try:
        target = path.resolve()
        if target.is_dir():
            raise StorageError(f"{path} is a folder; give the path of a file (--json)")
        if target.exists() and not target.is_file():
            raise StorageError(
                f"{path} is a device, pipe or socket, which no file may replace; "
                "give the path of a regular file (--json)"
            )
    except (OSError, RuntimeError) as error:  # before Python 3.13, a ring of links is a RuntimeError
        raise StorageError(f"{path} cannot be followed: {error}; give another path (--json)") from error
    return target


def _temporary(path: Path, text: str) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    return Path(file.name)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror}; free space or choose another path")
