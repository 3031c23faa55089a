"""What the parties report of a run: kept in memory, and of every finished round in a file too.

The file (``history.jsonl``, one line per round) is what a resumed run takes its earlier losses from, so
that its result is that of a run which nobody disturbed.
"""

import os
from collections.abc import Callable, Iterable, Mapping
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
    """One finished round; ``wire_bytes`` counts from the job's begin, by silo."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    round: int = Field(ge=1)
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

    Args:
        path: File of the finished rounds.
        traffic: Tells each silo's bytes of this process so far.
        forward: Who else wants to be told.
    """

    def __init__(
        self, path: Path, *, traffic: Callable[[], Mapping[str, WireBytes]], forward: OnProgress
    ) -> None:
        self._path, self._traffic, self._forward = path, traffic, forward
        self._rounds: list[RoundRecord] = []
        self._before: dict[str, WireBytes] = {}
        self._open = _Events()

    def __call__(self, progress: Progress) -> None:
        """Keep what is reported; a finished round is on the disk when this returns.

        Raises:
            StorageError: The file cannot be written.
        """
        match progress:
            case StepDone():
                self._open.steps.append(progress)
            case Evaluated():
                self._open.evaluations.append(progress)
            case TurnFinished():
                self._open.turns.append(progress)
            case RoundFinished():
                self._finish(progress.round)
            case _:
                pass
        self._forward(progress)

    @property
    def last_round(self) -> int:
        """Rounds that are recorded without a gap."""
        return len(self._rounds)

    @property
    def steps(self) -> tuple[StepDone, ...]:
        """All training steps, those of an unfinished round too."""
        return (*(step for entry in self._rounds for step in entry.steps), *self._open.steps)

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """All evaluations."""
        return (*(found for entry in self._rounds for found in entry.evaluations), *self._open.evaluations)

    @property
    def turns(self) -> tuple[TurnFinished, ...]:
        """All training turns of the trunk."""
        return (*(turn for entry in self._rounds for turn in entry.turns), *self._open.turns)

    def wire_bytes(self, silo: str) -> WireBytes:
        """Return one silo's bytes since the job's begin, without those of rounds that were repeated."""
        return self._before.get(silo, WireBytes()) + self._traffic().get(silo, WireBytes())

    def begin(self) -> None:
        """Forget every round: the job begins anew.

        Raises:
            StorageError: The file cannot be written.
        """
        self.keep(0)

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
        self._rounds = []
        for line in lines:
            try:
                entry = RoundRecord.model_validate_json(line)
            except ValidationError:
                return
            if entry.round != len(self._rounds) + 1:
                return
            self._rounds.append(entry)

    def keep(self, last_round: int) -> None:
        """Drop all rounds after ``last_round``, in the file too.

        Raises:
            StorageError: The file cannot be written.
        """
        self._rounds = self._rounds[:last_round]
        # This process's traffic counts on top of what the kept rounds took.
        self._before = dict(self._rounds[-1].wire_bytes) if self._rounds else {}
        temporary = self._path.with_name(f".{self._path.name}.writing")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            _write(temporary, self._rounds, mode="wb")
            temporary.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _finish(self, round_number: int) -> None:
        entry = RoundRecord(
            round=round_number,
            steps=tuple(self._open.steps),
            evaluations=tuple(self._open.evaluations),
            turns=tuple(self._open.turns),
            wire_bytes={silo: self.wire_bytes(silo) for silo in self._traffic()},
        )
        try:
            _write(self._path, [entry], mode="ab")
        except OSError as error:
            raise self._unwritable(error) from error
        self._rounds.append(entry)
        self._open = _Events()

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
