"""What a platform keeps: memory, open files and threads of its processes, the database's size; its growth."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import psycopg

from bench.stage import Stage
from splitlearn.errors import ProcessError

COLUMNS = (
    "part", "memory MiB", "grew, MiB/h", "open files", "grew, 1/h", "threads", "disk MiB", "grew, MiB/h",
)  # fmt: skip
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one part.

    Attributes:
        memory_bytes: Resident, of all its processes but for those of jobs.
        open_files: Descriptors.
        threads: Of its processes.
        disk_bytes: Of its folder; of the database, as it tells.
    """

    memory_bytes: int = 0
    open_files: int = 0
    threads: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """All parts at one moment."""

    minute: float
    kept: Mapping[str, Kept] = field(default_factory=dict)

    def describe(self) -> str:
        """Say it in a line."""
        return "; ".join(
            f"{part} {kept.memory_bytes / _MIB:.0f} MiB, {kept.open_files} files"
            + (f", {kept.disk_bytes / _MIB:.1f} MiB on disk" if part == "database" else "")
            for part, kept in self.kept.items()
        )


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one part: its last sample, and slopes per hour over the second half of the time."""

    part: str
    last: Kept
    memory_per_hour: float
    files_per_hour: float
    disk_per_hour: float

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        slopes = {
            "memory_bytes_per_hour": self.memory_per_hour,
            "open_files_per_hour": self.files_per_hour,
            "disk_bytes_per_hour": self.disk_per_hour,
        }
        return {**asdict(self.last), **slopes}

    def cells(self) -> tuple[str, ...]:
        """Return it for the table."""
        last = self.last
        return (
            self.part,
            f"{last.memory_bytes / _MIB:.0f}",
            f"{self.memory_per_hour / _MIB:+.0f}",
            str(last.open_files),
            f"{self.files_per_hour:+.0f}",
            str(last.threads),
            f"{last.disk_bytes / _MIB:.1f}",
            f"{self.disk_per_hour / _MIB:+.1f}",
        )


def sample(stage: Stage, *, minute: float) -> Sample:
    """Look at every part; everything must run."""
    parts = {"api", "gateway", *stage.workers, *(f"agent-{silo}" for silo in stage.silos)}
    kept = {part: _of_process(stage, part) for part in (*sorted(parts), *stage.servers)}
    return Sample(minute, kept)


def growth(samples: Sequence[Sample]) -> list[Growth]:
    """Return each part's slopes over the second half: what is filled once, such as a cache, is no growth."""
    if not samples:
        return []
    later = samples[len(samples) // 2 :]
    hours = [taken.minute / 60 for taken in later]

    def slope(part: str, name: str) -> float:
        return _slope(hours, [getattr(taken.kept[part], name) for taken in later])

    return [
        Growth(part, last, slope(part, "memory_bytes"), slope(part, "open_files"), slope(part, "disk_bytes"))
        for part, last in samples[-1].kept.items()
    ]


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Least squares; 0 where there is one time alone."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - middle) ** 2 for time in times)
    if not spread:
        return 0.0
    return sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread


def _of_process(stage: Stage, part: str) -> Kept:
    is_server = part in stage.servers
    try:
        own = psutil.Process(stage.pid(part))
        # An agent's jobs come and go; its forker stays. PostgreSQL's children share most of their memory.
        processes = [own, *own.children(recursive=is_server)]
    except psutil.NoSuchProcess as error:
        raise ProcessError(f"{part} does not run: {stage.log_of(part)[-500:]}") from error
    memory = files = threads = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            memory += process.memory_full_info().pss if is_server else process.memory_info().rss
            files += process.num_fds()
            threads += process.num_threads()
    return Kept(memory, files, threads, _on_disk(stage, part))


def _on_disk(stage: Stage, part: str) -> int:
    if part == "database":
        with psycopg.connect(stage.servers[part].url) as connection:
            found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert found is not None
            return int(found[0])
    folder = stage.folder / part
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
