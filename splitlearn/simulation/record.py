"""What the parties report of a run: kept in memory, and of every finished round in a file too.

The file (``history.jsonl``, one line per round) is what a resumed run takes its earlier losses from, so
that its result is that of a run which nobody disturbed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitlearn.errors import StorageError
from splitlearn.parties import Evaluated, OnProgress, Progress, RoundFinished, StepDone, TurnFinished


class WireBytes(BaseModel):
    """Sealed bytes of one silo so far, both directions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: int = Field(default=0, ge=0)
    evaluation: int = Field(default=0, ge=0)

    def __add__(self, other: "WireBytes") -> "WireBytes":
        return WireBytes(
            training=self.training + other.training, evaluation=self.evaluation + other.evaluation
        )


class RoundRecord(BaseModel):
    """One finished round of one trunk; ``wire_bytes`` counts from the job's begin, by silo."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    round: int = Field(ge=1)
    replica: int = Field(default=0, ge=0)
    steps: tuple[StepDone, ...]
    evaluations: tuple[Evaluated, ...]
    turns: tuple[TurnFinished, ...]
    wire_bytes: dict[str, WireBytes]


@dataclass
class _Events:
    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    turns: list[TurnFinished] = field(default_factory=list)


class RunRecord:
    """Listens to a run's progress.

    Where the trunk has replicas, each finishes its rounds by itself; what silos evaluate after one is kept
    with the next, for that is when it is certain not to be done again.

    Args:
        path: File of the finished rounds.
        traffic: Tells each silo's bytes of this process so far.
        forward: Who else wants to be told.
        replica_of: Each silo's replica; without replicas it may be left out.
    """

    def __init__(
        self,
        path: Path,
        *,
        traffic: Callable[[], Mapping[str, WireBytes]],
        forward: OnProgress,
        replica_of: Mapping[str, int] | None = None,
    ) -> None:
        self._path, self._traffic, self._forward = path, traffic, forward
        self._replica_of = replica_of or {}
        replicas = range(1 + max(self._replica_of.values(), default=0))
        self._rounds: dict[int, list[RoundRecord]] = {replica: [] for replica in replicas}
        self._before: dict[str, WireBytes] = {}
        self._open = {replica: _Events() for replica in replicas}

    def __call__(self, progress: Progress) -> None:
        """Keep what is reported; a finished round is on the disk when this returns.

        Raises:
            StorageError: The file cannot be written.
        """
        match progress:
            case StepDone():
                self._open_of(progress.silo).steps.append(progress)
            case Evaluated():
                self._open_of(progress.silo).evaluations.append(progress)
            case TurnFinished():
                self._open_of(progress.silos[0]).turns.append(progress)
            case RoundFinished():
                self._finish(progress.round, progress.replica or 0)
            case _:
                pass
        self._forward(progress)

    @property
    def last_round(self) -> int:
        """Rounds that are recorded without a gap, at every replica."""
        return min(self.last_round_of(replica) for replica in self._rounds)

    def last_round_of(self, replica: int) -> int:
        """Return the rounds of one replica that are recorded without a gap."""
        return len(self._rounds[replica])

    @property
    def steps(self) -> tuple[StepDone, ...]:
        """All training steps, those of an unfinished round too."""
        return tuple(step for events in self._events() for step in events.steps)

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """All evaluations."""
        return tuple(found for events in self._events() for found in events.evaluations)

    @property
    def turns(self) -> tuple[TurnFinished, ...]:
        """All training turns of the trunk."""
        return tuple(turn for events in self._events() for turn in events.turns)

    def wire_bytes(self, silo: str) -> WireBytes:
        """Return one silo's bytes since the job's begin, without those of rounds that were repeated."""
        return self._before.get(silo, WireBytes()) + self._traffic().get(silo, WireBytes())

    def begin(self) -> None:
        """Forget every round: the job begins anew.

        Raises:
            StorageError: The file cannot be written.
        """
        self.keep([0] * len(self._rounds))

    def read(self) -> None:
        """Read the rounds of an earlier run; a line that was torn, and all after it, do not count.

        Raises:
            StorageError: The file cannot be read.
        """
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            raise StorageError(
                f"cannot read {self._path}: {error.strerror}; correct its permissions"
            ) from error
        self._rounds = {replica: [] for replica in self._rounds}
        for line in lines:
            try:
                entry = RoundRecord.model_validate_json(line)
            except ValidationError:
                return
            known = self._rounds.get(entry.replica)
            if known is None or entry.round != len(known) + 1:
                return
            known.append(entry)

    def keep(self, last_rounds: Sequence[int]) -> None:
        """Drop all rounds after these, in the file too.

        Args:
            last_rounds: Of each replica the last one that counts.

        Raises:
            StorageError: The file cannot be written.
        """
        for (replica, entries), last_round in zip(self._rounds.items(), last_rounds, strict=True):
            self._rounds[replica] = entries[:last_round]
        entries = [entry for of_replica in self._rounds.values() for entry in of_replica]
        # This process's traffic counts on top of what the kept rounds took.
        newest = [of_replica[-1] for of_replica in self._rounds.values() if of_replica]
        self._before = {silo: count for entry in newest for silo, count in entry.wire_bytes.items()}
        temporary = self._path.with_name(f".{self._path.name}.writing")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            _write(temporary, entries, mode="wb")
            temporary.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _open_of(self, silo: str) -> _Events:
        return self._open[self._replica_of.get(silo, 0)]

    def _events(self) -> Iterator["RoundRecord | _Events"]:
        for replica, entries in self._rounds.items():
            yield from entries
            yield self._open[replica]

    def _finish(self, round_number: int, replica: int) -> None:
        events = self._open[replica]
        entry = RoundRecord(
            round=round_number,
            replica=replica,
            steps=tuple(events.steps),
            evaluations=tuple(events.evaluations),
            turns=tuple(events.turns),
            wire_bytes={
                silo: self.wire_bytes(silo)
                for silo in self._traffic()
                if self._replica_of.get(silo, 0) == replica
            },
        )
        try:
            _write(self._path, [entry], mode="ab")
        except OSError as error:
            raise self._unwritable(error) from error
        self._rounds[replica].append(entry)
        self._open[replica] = _Events()

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self._path}: {error.strerror}; free space or correct its permissions, then resume"
        )


def _write(path: Path, entries: Iterable[RoundRecord], *, mode: str) -> None:
    with path.open(mode) as file:
        for entry in entries:
            file.write(entry.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
