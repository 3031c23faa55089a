"""Bytes that crossed since a job's begin, over all attempts and processes of this silo."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

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

    def before(self, round_number: int) -> Crossed:
        """Return the totals at the end of the round before."""
        return self.rounds.get(round_number - 1, Crossed())

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
