"""The list of the silo's data sets, a file of the state folder that commands and a running agent share."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client_agent.data.dataset import Dataset
from splitlearn.control_plane.schemas import MAX_ANNOUNCED_DATASETS
from splitlearn.errors import DataError, StorageError
from splitlearn.simulation.json_files import write_json

_FILE, _LOCK = "datasets.json", "datasets.lock"


class UnknownDatasetError(DataError):
    """No data set of that name."""

    code = "unknown_dataset"


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    datasets: tuple[Dataset, ...] = ()


class DatasetRegistry:
    """Reads and changes the list; every change is whole or not at all.

    Args:
        state_dir: The agent's state folder.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._path = state_dir / _FILE

    def all(self) -> list[Dataset]:
        """Return every data set, by name.

        Raises:
            StorageError: The list cannot be read.
        """
        return sorted(self._read().values(), key=lambda dataset: dataset.name)

    def get(self, name: str) -> Dataset:
        """Return one data set.

        Raises:
            UnknownDatasetError: No such data set; says which there are.
            StorageError: The list cannot be read.
        """
        datasets = self._read()
        if name not in datasets:
            raise _unknown(name, datasets)
        return datasets[name]

    def put(self, dataset: Dataset, *, replace: bool = False) -> None:
        """Add a data set, or put it in the place of the one of its name.

        Raises:
            DataError: The name is taken, or there are too many.
            StorageError: The list cannot be written.
        """
        with self._locked():
            datasets = self._read()
            if dataset.name in datasets and not replace:
                raise DataError(
                    f"a data set {dataset.name!r} exists already ({datasets[dataset.name].path}); "
                    "choose another name, remove it first, or replace it (--replace)"
                )
            if len(datasets) >= MAX_ANNOUNCED_DATASETS and dataset.name not in datasets:
                raise DataError(f"{len(datasets)} data sets are the limit; remove one first")
            self._write({**datasets, dataset.name: dataset})

    def remove(self, name: str) -> None:
        """Forget a data set; its file stays.

        Raises:
            UnknownDatasetError: No such data set.
            StorageError: The list cannot be written.
        """
        with self._locked():
            datasets = self._read()
            if name not in datasets:
                raise _unknown(name, datasets)
            self._write({key: value for key, value in datasets.items() if key != name})

    def version(self) -> tuple[int, int] | None:
        """Return what changes whenever the list does: cheap to ask again and again."""
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_ino, state.st_mtime_ns

    def _read(self) -> dict[str, Dataset]:
        try:
            content = _Content.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise StorageError(
                f"{self._path} cannot be read as a list of data sets; correct its permissions, or delete it "
                "and add the data sets again"
            ) from error
        return {dataset.name: dataset for dataset in content.datasets}

    def _write(self, datasets: dict[str, Dataset]) -> None:
        content = _Content(datasets=tuple(datasets.values()))
        write_json(self._path, content.model_dump(mode="json"), mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self._state_dir / _LOCK).open("ab")
        except OSError as error:
            raise StorageError(
                f"cannot write to {self._state_dir} ({error.strerror}); correct its permissions, or choose "
                "another folder (--state-dir)"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _unknown(name: str, datasets: dict[str, Dataset]) -> UnknownDatasetError:
    known = ", ".join(sorted(datasets)) or "none"
    return UnknownDatasetError(
        f"no data set {name!r} here; there are: {known}; add it with: trunkline-agent data add {name} FILE"
    )
