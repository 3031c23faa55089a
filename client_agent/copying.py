"""Handing a result over: a copy that appears whole or not at all. Torch-free."""

import shutil
import tempfile
from pathlib import Path

from splitlearn.errors import StorageError


def copy_result(source: Path, target: Path) -> None:
    """Copy a job's result to where its owner wants it.

    Raises:
        StorageError: There is no result yet, the place is taken, or the disk is full.
    """
    if not source.is_dir():
        raise StorageError(
            f"there is no result in {source.parent} yet; trunkline-agent status tells how far the job is"
        )
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise StorageError(f"{target} exists already; move it away, or choose another folder")
    try:
        _copy(source, target)
    except (OSError, shutil.Error) as error:
        num_bytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        raise StorageError(
            f"cannot write {target} ({error}); it needs {num_bytes} bytes: free space, or choose another "
            "folder"
        ) from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        temporary.chmod(0o755)  # mkdtemp's 0700 would outlive the rename
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
