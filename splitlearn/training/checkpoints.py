"""A party's round checkpoints: written whole or not at all, checked before they are believed.

Layout: ``<folder>/round-<8 digits>/`` holds ``state.safetensors`` and ``manifest.json``. A checkpoint is
written to a temporary folder beside it, files and folder are flushed to the disk, and one rename makes it
visible. The manifest names the job (digest of its specification) and the party, and seals the tensors by
size and SHA-256, so that a torn file or another job's is refused rather than trained on.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

# safetensors loads it at the first save. Of several threads that save first at the same time, one recursed
# without end: numpy finds the module by importing it, which another thread is still at.
import numpy.ctypeslib  # noqa: F401 - see above
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from splitlearn.errors import NoSpaceError, StorageError
from splitlearn.spec import JobSpec

ROUNDS_KEPT = 2
"""Two, because after a crash the parties' last common round may be the one before the last."""

MAX_MANIFEST_BYTES = 64 << 10
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
_VISIBLE = re.compile(r"round-(\d{8})")
_HEADER_ALLOWANCE_BYTES = 1 << 20


class Manifest(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        version: Version of this layout.
        spec_digest: Hex digest of the job's specification.
        party: Silo's name, or the trunk replica's.
        round: Rounds completed; the first is 1.
        global_step: Global optimiser step that comes next.
        state_bytes: Size of the tensor file.
        state_sha256: Hex SHA-256 of the tensor file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int = Field(default=1, ge=1, le=1)
    spec_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    party: str = Field(min_length=1, max_length=64)
    round: int = Field(ge=1, lt=100_000_000)
    global_step: int = Field(ge=0)
    state_bytes: int = Field(ge=0)
    state_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CheckpointStore:
    """The checkpoints of one party in one job.

    Args:
        folder: A folder that nothing else uses; made at the first save.
        spec: The job.
        party: Silo's name, or the trunk replica's.
        reserve_bytes: Space that a save leaves free on the disk.
    """

    def __init__(self, folder: Path, *, spec: JobSpec, party: str, reserve_bytes: int = 64 << 20) -> None:
        self._folder, self._party, self._reserve_bytes = folder, party, reserve_bytes
        self._spec_digest = spec.digest().hex()
        self._steps_per_round = spec.total_steps // spec.rounds

    def rounds(self) -> list[int]:
        """Return the rounds that have a visible checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        matches = (_VISIBLE.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def last_round(self) -> int:
        """Return the last round that has a visible checkpoint, 0 if there is none."""
        return max(self.rounds(), default=0)

    def clear(self) -> None:
        """Delete every checkpoint: the job begins anew.

        Raises:
            StorageError: The disk refused.
        """
        try:
            if self._folder.is_dir():
                shutil.rmtree(self._folder)
        except OSError as error:
            raise StorageError(
                f"cannot clear {self._folder}: {error}; correct its permissions or choose another folder"
            ) from error

    def save(self, tensors: Mapping[str, Tensor], *, round_number: int) -> Path:
        """Write a round's checkpoint, then delete all but the last two. One of the same round is replaced.

        Args:
            tensors: What the party's trainer returned as its state; empty for frozen blocks.
            round_number: Rounds completed.

        Returns:
            The checkpoint's folder.

        Raises:
            StorageError: No space, or the disk refused; nothing half-written stays, earlier rounds do.
        """
        target = self._path(round_number)
        temporary = target.with_name(f".{target.name}.writing")
        num_bytes = sum(tensor.nbytes for tensor in tensors.values()) + _HEADER_ALLOWANCE_BYTES
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._refuse_full_disk(target, num_bytes)
            self._write(temporary, tensors, round_number)
            _make_visible(temporary, target)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"cannot write checkpoint {target} ({num_bytes} bytes needed): {error}; "
                "free space or correct the folder's permissions, then resume"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._prune(round_number)
        return target

    def load(self, round_number: int) -> dict[str, Tensor]:
        """Read one round's checkpoint, for the trainer's ``load_state``.

        Raises:
            StorageError: Missing, torn, or another job's or party's; names the checkpoint.
        """
        source = self._path(round_number)
        manifest = _read_manifest(source)
        wanted = (self._spec_digest, self._party, round_number)
        if (manifest.spec_digest, manifest.party, manifest.round) != wanted:
            raise StorageError(
                f"checkpoint {source} is of party {manifest.party!r}, round {manifest.round}, specification "
                f"{manifest.spec_digest[:12]}; wanted {self._party!r}, round {round_number}, specification "
                f"{self._spec_digest[:12]}; give this job a folder of its own"
            )
        return _read_state(source, manifest)

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:08d}"

    def _refuse_full_disk(self, target: Path, num_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._folder).free
        if free_bytes < num_bytes + self._reserve_bytes:
            numbers = f"{num_bytes} bytes needed and {self._reserve_bytes} kept in reserve, {free_bytes} free"
            raise NoSpaceError(
                f"no space for checkpoint {target}: {numbers}; free space, then resume",
                public=f"its disk is full: {numbers}; free space there, then retry the job",
            )

    def _write(self, temporary: Path, tensors: Mapping[str, Tensor], round_number: int) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        state = temporary / _STATE
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, state)
        manifest = Manifest(
            spec_digest=self._spec_digest,
            party=self._party,
            round=round_number,
            global_step=round_number * self._steps_per_round,
            state_bytes=state.stat().st_size,
            state_sha256=_sha256(state),
        )
        (temporary / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in (state, temporary / _MANIFEST, temporary):
            _flush(path)

    def _prune(self, newest: int) -> None:
        """Delete old rounds, those of a future that was given up, and what a killed process left behind."""
        kept = [number for number in self.rounds() if number <= newest][-ROUNDS_KEPT:]
        for number in self.rounds():
            if number not in kept:
                _hide(self._path(number))
        for path in self._folder.glob(".round-*"):
            shutil.rmtree(path, ignore_errors=True)


def _make_visible(temporary: Path, target: Path) -> None:
    """Rename into place. A folder cannot replace one that is not empty, so an old one steps aside first."""
    aside = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    temporary.rename(target)
    _flush(target.parent)


def _hide(path: Path) -> None:
    """Take a checkpoint out of sight before it is deleted file by file: what can be seen is whole."""
    hidden = path.with_name(f".{path.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is old: the next save tries again
        path.rename(hidden)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(source: Path) -> Manifest:
    try:
        with (source / _MANIFEST).open("rb") as file:
            return Manifest.model_validate_json(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"checkpoint {source} has no sound manifest; delete it to resume from an earlier round"
        ) from error


def _read_state(source: Path, manifest: Manifest) -> dict[str, Tensor]:
    state = source / _STATE
    try:
        if state.stat().st_size == manifest.state_bytes and _sha256(state) == manifest.state_sha256:
            tensors: dict[str, Tensor] = load_file(state)
            return tensors
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"checkpoint {source} cannot be read: {error}; delete it to resume from an earlier round"
        ) from error
    raise StorageError(
        f"checkpoint {source} is torn: {_STATE} is not what its manifest says; "
        "delete it to resume from an earlier round"
    )
