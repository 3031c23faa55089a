"""The folder of one run: who may use it, which job it holds, and what was there before.

::

    <out>/trunkline.lock     held while a run uses the folder
    <out>/job.json           what is run: a resumed run must be the same
    <out>/history.jsonl      losses of the finished rounds
    <out>/silos/             each silo's checkpoints and result, or its agent's folder
    <out>/worker/            the trunk's checkpoints, where all parties are one process
    <out>/platform/          control plane, gateway and worker, where each is a process
    <out>/result.json        what the run came to
    <out>/models/            tiny models that were made here
    <out>/earlier/<number>/  the runs before
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from splitlearn.errors import SpecError, StorageError
from splitlearn.simulation.federation import HISTORY
from splitlearn.simulation.json_files import write_json
from splitlearn.spec import JobSpec

LOCK, JOB, RESULT = "trunkline.lock", "job.json", "result.json"
_OF_A_RUN = (
    JOB,
    HISTORY,
    "silos",
    "worker",
    "platform",
    RESULT,
)  # the job first: what is left of it is no run
NAMES_OF_A_RUN = frozenset({LOCK, "models", "earlier", *_OF_A_RUN})
"""What a run makes in its folder, besides files whose names begin with a dot."""
_OF_A_RESULT = frozenset({"status", "schedule", "silos", "out", "last_round"})
_MAX_RESULT_BYTES = 1 << 20
_MAX_DIFFERENCES = 5


class Job(BaseModel):
    """What makes two runs the same, bit for bit.

    Attributes:
        spec: The specification.
        threads: Threads of torch, per party.
        in_process: Whether all parties are one process; the numbers are the same, the folders are not.
        model: Fingerprint of the model's files.
        data: Fingerprint of each silo's rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: JobSpec
    threads: int
    in_process: bool
    model: str
    data: dict[str, str]

    def differences(self, other: "Job") -> list[str]:
        """Say, field by field, what differs in ``other``."""
        mine, others = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        named = []
        for path in dict.fromkeys([*mine, *others]):
            if mine.get(path) != others.get(path):
                field = path.removeprefix("spec.")
                named.append(
                    f"{field} has changed"
                    if path == "model" or path.startswith("data.")
                    else f"{field} was {mine.get(path)!r}, is {others.get(path)!r}"
                )
        return named


class RunFolder:
    """A run's folder, claimed; see :func:`claim`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_begun = False

    @property
    def is_begun(self) -> bool:
        """Whether a job was begun, or is gone on with."""
        return self._is_begun

    @property
    def models(self) -> Path:
        """Where tiny models are made."""
        return self.path / "models"

    @property
    def result(self) -> Path:
        """The result's file."""
        return self.path / RESULT

    def begin(self, job: Job) -> Path | None:
        """Begin a job; what an earlier one left is moved, and its new place returned.

        Raises:
            StorageError: The disk refused.
        """
        try:
            moved = self._move_aside()
        except OSError as error:
            raise _refused(self.path, error) from error
        write_json(self.path / JOB, job.model_dump(mode="json"))
        self._is_begun = True
        return moved

    def resume(self, job: Job) -> None:
        """Go on with the job that is here.

        Raises:
            StorageError: There is none, or it cannot be read.
            SpecError: It is another; every difference is named.
        """
        path = self.path / JOB
        if not path.exists():
            raise StorageError(f"{self.path} holds no run to resume; leave --resume out, or correct --out")
        try:
            earlier = Job.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StorageError(
                f"{path} cannot be read as the job that was begun; leave --resume out to begin anew"
            ) from error
        named = earlier.differences(job)
        if named:
            more = f", and {len(named) - _MAX_DIFFERENCES} more" if len(named) > _MAX_DIFFERENCES else ""
            raise SpecError(
                f"the run in {self.path} is another job: {'; '.join(named[:_MAX_DIFFERENCES])}{more}; "
                "give the same flags to resume it, or leave --resume out to begin anew"
            )
        self._is_begun = True

    def _move_aside(self) -> Path | None:
        present = [name for name in _OF_A_RUN if (self.path / name).exists()]
        if not present:
            return None
        number = 1
        while (self.path / "earlier" / str(number)).exists():
            number += 1
        place = self.path / "earlier" / str(number)
        place.mkdir(parents=True)
        for name in present:
            (self.path / name).rename(place / name)
        return place


@contextmanager
def claim(path: Path) -> Iterator[RunFolder]:
    """Make a run's folder and hold it against every other run.

    Yields:
        The folder. If no job was begun in it, all that was made meanwhile is gone again afterwards.

    Raises:
        StorageError: Another run holds it, it holds files that are no run's, or the disk refused.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(path)
        before = {entry.name for entry in path.iterdir()}
        descriptor = _lock(path / LOCK)
    except OSError as error:
        raise _refused(path, error) from error
    folder = RunFolder(path)
    try:
        yield folder
    finally:
        if not folder.is_begun:
            _remove_made(folder, before, made)
        os.close(descriptor)


def _remove_made(folder: RunFolder, before: set[str], made: list[Path]) -> None:
    """Undo a call that was refused: its tiny model, its lock, and the folders that nothing else is in."""
    if folder.models.name not in before:
        shutil.rmtree(folder.models, ignore_errors=True)
    with suppress(OSError):
        if LOCK not in before or [entry.name for entry in folder.path.iterdir()] == [LOCK]:
            (folder.path / LOCK).unlink()
        for path in made:
            path.rmdir()


def _refuse_strangers(path: Path) -> None:
    if (path / LOCK).exists():
        return
    strangers = [entry.name for entry in path.iterdir() if not _is_result(entry)]
    if strangers:
        raise StorageError(
            f"{path} holds files that are no run of Trunkline ({min(strangers)}); "
            "choose an empty or a new folder"
        )


def _is_result(path: Path) -> bool:
    """Whether this is what ``--json`` has left of a run that was refused."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_RESULT_BYTES:
            return False
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _OF_A_RESULT


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise StorageError(
                f"another run is using {path.parent}; wait for its end, or choose another folder (--out)"
            ) from None
        os.close(descriptor)  # its last user removed the file just now


def _refused(path: Path, error: OSError) -> StorageError:
    remedy = (
        "free space, or choose another folder (--out)"
        if error.errno == errno.ENOSPC
        else "choose another folder (--out), or correct its permissions"
    )
    return StorageError(f"{path} cannot be the run's folder: {error.strerror}; {remedy}")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and value:
        parts = {str(index): part for index, part in enumerate(value)}.items()
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, part in parts:
        found |= _flat(part, f"{path}.{name}" if path else name)
    return found
