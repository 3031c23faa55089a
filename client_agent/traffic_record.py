"""Bytes that crossed since a job's begin, over all attempts and processes of this silo."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from client_agent.places import JobFolder
from splitlearn.exchange import Exchange
from splitlearn.simulation.json_files import write_json
from splitlearn.training.checkpoints import ROUNDS_KEPT
from splitlearn.wire import Phase


class Crossed(BaseModel):
    """What crossed between silo and trunk up to the end of a round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wire_bytes: int = 0
    eval_wire_bytes: int = 0
    resent_messages: int = 0

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        """Return what has crossed in one conversation."""
        traffic = exchange.traffic
        return cls(
            wire_bytes=traffic.bytes_of(Phase.TRAIN),
            eval_wire_bytes=traffic.bytes_of(Phase.EVAL) + traffic.bytes_of(Phase.GENERATE),
            resent_messages=traffic.resent_messages,
        )

    def plus(self, other: "Crossed") -> "Crossed":
        """Return both together."""
        mine, theirs = self.model_dump(), other.model_dump()
        return Crossed(**{name: value + theirs[name] for name, value in mine.items()})

    def minus(self, other: "Crossed") -> "Crossed":
        """Return what is left without the other."""
        mine, theirs = self.model_dump(), other.model_dump()
        return Crossed(**{name: value - theirs[name] for name, value in mine.items()})


class TrafficRecord(BaseModel):
    """Totals at the end of the last rounds, so that an attempt goes on counting where its round began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: dict[int, Crossed] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record; an empty one where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def up_to(self, round_number: int) -> Crossed:
        """Return the totals at the end of a round."""
        return self.rounds.get(round_number, Crossed())

    def before(self, round_number: int) -> Crossed:
        """Return the totals at the end of the round before."""
        return self.up_to(round_number - 1)

    def with_round(self, round_number: int, crossed: Crossed) -> "TrafficRecord":
        """Return the record with one more round, of which as many are kept as there are checkpoints."""
        known = {number: total for number, total in self.rounds.items() if number < round_number}
        kept = sorted({**known, round_number: crossed}.items())[-ROUNDS_KEPT - 1 :]
        return TrafficRecord(rounds=dict(kept))

    def write(self, path: Path) -> None:
        """Put the record in the place of the one before.

        Raises:
            StorageError: The disk refused.
        """
        write_json(path, self.model_dump(mode="json"), mode=0o600)


class Tally:
    """Counts what crosses in one attempt on top of what did before, in rounds or where replicas met.

    Each of the two has a record of its own, so that a round, or a meeting, that is begun again counts once.

    Args:
        path: The record that is written.
        other: The totals of the other kind.
        comes_after: Whether the other kind's part of a round comes before this one's: a meeting's does.
    """

    def __init__(self, path: Path, other: TrafficRecord, *, comes_after: bool) -> None:
        self._path, self._record = path, TrafficRecord.read(path)
        self._other, self._comes_after = other, comes_after
        self._before: Crossed | None = None

    @classmethod
    def of_rounds(cls, folder: JobFolder) -> Self:
        """Return the tally of an attempt that trains."""
        return cls(folder.traffic, TrafficRecord.read(folder.meetings_traffic), comes_after=False)

    @classmethod
    def of_meetings(cls, folder: JobFolder) -> Self:
        """Return the tally of a meeting."""
        return cls(folder.meetings_traffic, TrafficRecord.read(folder.traffic), comes_after=True)

    def begin(self, round_number: int) -> None:
        """Count on from a round's begin; only the first word counts."""
        if self._before is None:
            self._before = self._record.before(round_number)

    def end(self, round_number: int, crossed: Crossed) -> Crossed:
        """Write down that a round has ended; return all that has crossed since the job's begin.

        Args:
            round_number: The round.
            crossed: In this attempt.

        Raises:
            StorageError: The disk refused.
        """
        self.begin(round_number)
        assert self._before is not None
        total = self._before.plus(crossed)
        self._record = self._record.with_round(round_number, total)
        self._record.write(self._path)
        return total.plus(self._other.up_to(round_number if self._comes_after else round_number - 1))
