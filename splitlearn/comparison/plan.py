"""Which runs a comparison consists of, and what each result depends on. Torch-free."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from splitlearn.comparison.modes import Mode
from splitlearn.comparison.specification import Comparison
from splitlearn.errors import DataError, SpecError
from splitlearn.planning import ModelFolder
from splitlearn.spec import JobSpec

MAX_SEEDS = 1000
_FORMAT = b"trunkline/comparison/v1\0"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        mode: How.
        seed: Of batches, held-out rows and whatever else is drawn.
        base: The job as every mode has it, with this seed.
        job: This mode's job.
        fingerprint: Digest of all that the result depends on; equal ones need no second run.
    """

    mode: Mode
    seed: int
    base: JobSpec
    job: JobSpec
    fingerprint: str

    @property
    def name(self) -> str:
        """The run, as files are called after it."""
        return f"{self.mode.file_stem}.seed-{self.seed}"

    def __str__(self) -> str:
        """Name the run for people."""
        return f"{self.mode.name}, seed {self.seed}"


def plan_runs(
    comparison: Comparison, modes: Sequence[Mode], *, num_seeds: int, threads: int
) -> tuple[Run, ...]:
    """List all runs: seed by seed, so that what is finished first can be compared.

    Raises:
        SpecError: A mode cannot train this job; names every such mode. Or there are too many seeds.
        DataError: A data file cannot be read.
    """
    base = comparison.base
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise SpecError(f"--seeds {num_seeds}: out of range; give 1 to {MAX_SEEDS}")
    _refuse_impossible(comparison, modes)
    inputs = _inputs_digest(comparison, threads=threads)
    runs = []
    for seed in range(base.seed, base.seed + num_seeds):
        seeded = base.model_copy(update={"seed": seed})
        for mode in modes:
            job = comparison.job(mode, seed=seed)
            digest = hashlib.sha256(inputs + mode.name.encode() + b"\0" + seeded.digest() + job.digest())
            runs.append(Run(mode, seed, seeded, job, digest.hexdigest()))
    return tuple(runs)


def _refuse_impossible(comparison: Comparison, modes: Sequence[Mode]) -> None:
    lines: list[str] = []
    kind: type[SpecError] = SpecError
    for mode in modes:
        try:
            comparison.job(mode, seed=comparison.base.seed)
        except SpecError as error:
            lines.append(error.message)
            kind = type(error)
    if lines:
        raise kind("\n".join(lines))


def _inputs_digest(comparison: Comparison, *, threads: int) -> bytes:
    digest = hashlib.sha256(_FORMAT + _release().encode() + b"\0")
    digest.update(json.dumps([threads, comparison.source.model_dump(mode="json")]).encode())
    for path in comparison.source.files:
        digest.update(_file_digest(path))
    folder = ModelFolder.open(comparison.model_folder)
    for name in ("config.json", "tokenizer.json"):
        if (folder.path / name).is_file():
            digest.update(_file_digest(folder.path / name))
    for name in sorted(set(folder.files.values())):  # many gigabytes perhaps: size and time of change
        found = (folder.path / name).stat()
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.digest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a readable file") from error
    return digest.digest()


def _release() -> str:
    try:
        return version("trunkline-agent")
    except PackageNotFoundError:  # a source tree that nobody installed
        return "source"
