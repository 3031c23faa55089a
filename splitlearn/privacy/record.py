"""What a silo never forgets of its sums: which masks were used, and over which rosters.

Two sums of the same values over two rosters would subtract to the blocks of those in one of them only. So a
silo writes down, before the first word leaves, the attempt and the roster; a restart changes nothing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitlearn.control_plane.durable_file import read_if_there, write_durably
from splitlearn.errors import StorageError
from splitlearn.privacy.errors import ReusedSumError
from splitlearn.privacy.roster import Roster, SumPlace

MAX_RUNS = 1024
MAX_ATTEMPT = 2**32 - 2
"""Only a member that cheats ever gets there."""
_MAX_BYTES = 1 << 20

_U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Run(BaseModel):
    """Consecutive sums over the same members."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    first_round: _U32
    first_step: _U32
    last_round: _U32
    last_step: _U32
    members: _Digest

    def holds(self, place: SumPlace) -> bool:
        first, last = (self.first_round, self.first_step), (self.last_round, self.last_step)
        return first <= (place.round, place.step) <= last


class _Sums(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int = Field(default=1, ge=1, le=1)
    job: str = Field(min_length=1, max_length=64)
    spec_digest: _Digest
    last_attempt: _U32 = 0
    unfinished: _Digest | None = None
    runs: Annotated[list[_Run], Field(max_length=MAX_RUNS)] = []


class SumRecord:
    """One silo's sums of one job, on disk.

    Args:
        path: The file; made with the first sum.
        job: The job's id.
        spec_digest: 32 bytes.

    Raises:
        StorageError: The file cannot be read, is torn, or is another job's.
    """

    def __init__(self, path: Path, *, job: str, spec_digest: bytes) -> None:
        self._path = path
        self._sums = self._read(job, spec_digest.hex())

    @property
    def next_attempt(self) -> int:
        """The first attempt in which no word was sent; beyond :data:`MAX_ATTEMPT` where all were used."""
        return self._sums.last_attempt + 1

    def refuse(self, roster: Roster) -> None:
        """Refuse a roster whose masks were used, or that would sum the same values with others.

        After a sum that was not finished, the next one must be over the same members, wherever it stands:
        a trunk could keep the values nearly still in between.

        Raises:
            ReusedSumError: Says which.
        """
        if roster.attempt <= self._sums.last_attempt:
            raise ReusedSumError(
                f"attempt {roster.attempt} was used before, the last one was {self._sums.last_attempt}; "
                "masks are used once"
            )
        members = _digest_of(roster.names)
        if self._sums.unfinished not in {None, members}:
            raise ReusedSumError(
                f"the last sum was not finished, and this one is over {list(roster.names)} instead of its "
                "members; the two would subtract. Wait for those who are missing, or end the job"
            )
        for run in self._sums.runs:
            if run.holds(roster.place) and run.members != members:
                raise ReusedSumError(
                    f"the blocks of round {roster.place.round} after {roster.place.step} steps were summed "
                    f"before, over other silos than {list(roster.names)}; the two sums would subtract"
                )

    def note_sending(self, roster: Roster) -> None:
        """Write down that words under this roster are about to leave; it is on disk when this returns.

        Raises:
            ReusedSumError: See :meth:`refuse`.
            StorageError: The disk refused; nothing may be sent.
        """
        self.refuse(roster)
        members = _digest_of(roster.names)
        runs = self._with(roster.place, members)
        if len(runs) > MAX_RUNS:
            raise ReusedSumError(
                f"the members of this job's sums have changed {MAX_RUNS} times, the limit; begin a new job"
            )
        self._write(last_attempt=roster.attempt, unfinished=members, runs=runs)

    def note_finished(self) -> None:
        """Write down that the sum was finished: every member has the average.

        Raises:
            StorageError: The disk refused.
        """
        self._write(unfinished=None)

    def _with(self, place: SumPlace, members: str) -> list[_Run]:
        runs = list(self._sums.runs)
        if any(run.holds(place) for run in runs):
            return runs
        here = {"last_round": place.round, "last_step": place.step}
        if runs and runs[-1].members == members and _end(runs[-1]) < (place.round, place.step):
            return [*runs[:-1], runs[-1].model_copy(update=here)]
        new = _Run(first_round=place.round, first_step=place.step, **here, members=members)
        return [*runs, new]

    def _write(self, **changes: object) -> None:
        sums = self._sums.model_copy(update=changes)
        write_durably(self._path, sums.model_dump_json(indent=2).encode() + b"\n")
        self._sums = sums

    def _read(self, job: str, spec_digest: str) -> _Sums:
        content = read_if_there(self._path, max_bytes=_MAX_BYTES)
        if content is None:
            return _Sums(job=job, spec_digest=spec_digest)
        try:
            sums = _Sums.model_validate_json(content)
        except ValidationError as error:
            raise StorageError(
                f"{self._path} is no record of secure sums; restore it from your backup: without it this "
                "silo could be made to sum the same values twice"
            ) from error
        if (sums.job, sums.spec_digest) != (job, spec_digest):
            raise StorageError(
                f"{self._path} is of job {sums.job!r}, specification {sums.spec_digest[:12]}; wanted "
                f"{job!r}, {spec_digest[:12]}; give this job a folder of its own"
            )
        return sums


def _end(run: _Run) -> tuple[int, int]:
    return (run.last_round, run.last_step)


def _digest_of(names: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(names).encode()).hexdigest()
