"""The folder of one comparison. Torch-free.

::

    <out>/comparison.lock        held while a comparison uses the folder
    <out>/runs/<run>.json        what a run came to; a run that has one is not repeated
    <out>/runs/<run>.log         what its process printed
    <out>/work/                  what runs and their processes need while they run
    <out>/comparison.json        the numbers, for scripts
    <out>/report.md, report.html the same for people
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splitlearn.errors import StorageError

LOCK = "comparison.lock"
RESULT, MARKDOWN, PAGE = "comparison.json", "report.md", "report.html"


class ComparisonFolder:
    """A comparison's folder, claimed; see :func:`claim`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def runs(self) -> Path:
        """Results and logs of the runs."""
        return self.path / "runs"

    @property
    def work(self) -> Path:
        """What runs need while they run."""
        return self.path / "work"

    def result_of(self, run: str) -> Path:
        """Return the file of one run's result."""
        return self.runs / f"{run}.json"

    def log_of(self, run: str) -> Path:
        """Return the file of what one run printed."""
        return self.runs / f"{run}.log"

    def work_of(self, run: str) -> Path:
        """Return the folder that one run has while it runs."""
        return self.work / run

    def forget_runs(self) -> None:
        """Begin anew: every result goes, and every log."""
        shutil.rmtree(self.runs, ignore_errors=True)


@contextmanager
def claim(path: Path) -> Iterator[ComparisonFolder]:
    """Make a comparison's folder and hold it against every other comparison.

    Yields:
        The folder. What runs of an earlier, killed comparison left in ``work`` is gone.

    Raises:
        StorageError: Another comparison holds it, it holds other files, or the disk refused.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(path)
        descriptor = _locked(path / LOCK)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be the comparison's folder: {error.strerror}; choose another (--out)"
        ) from error
    folder = ComparisonFolder(path)
    try:
        shutil.rmtree(folder.work, ignore_errors=True)
        yield folder
    finally:
        shutil.rmtree(folder.work, ignore_errors=True)
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror}; free space, or choose another --out"
        ) from error


def _refuse_strangers(path: Path) -> None:
    if (path / LOCK).exists():
        return
    strangers = sorted(entry.name for entry in path.iterdir())
    if strangers:
        raise StorageError(
            f"{path} holds files that are no comparison's ({strangers[0]}); choose an empty or a "
            "new folder (--out)"
        )


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StorageError(
            f"another comparison is using {path.parent}; wait for its end, or choose another folder (--out)"
        ) from None
    return descriptor
