"""How long a training step takes under each schedule, from what its parties compute and what crosses. Pure.

A step crosses the cut four times (activations, hidden states, and the gradients of both), which is two round
trips, whatever the schedule. What differs is who computes at the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CROSSINGS = 4
"""Messages of a silo and a micro-batch, both directions; to a frozen bottom the last has no tensor."""
ROUND_TRIPS = CROSSINGS / 2
_IN_FLIGHT = 2
"""Micro-batches that a silo has under way at once (``splitlearn.parties.silo``)."""


@dataclass(frozen=True, slots=True)
class Line:
    """The way between a silo and the trunk's worker.

    Attributes:
        round_trip_seconds: There and back, for a short message.
        bytes_per_second: In one direction; None where it is no limit.
    """

    round_trip_seconds: float = 0.0
    bytes_per_second: float | None = None

    def seconds(self, num_bytes: float) -> float:
        """Return how long so many bytes take beyond the round trip."""
        return 0.0 if self.bytes_per_second is None else num_bytes / self.bytes_per_second


NO_DELAY = Line()


@dataclass(frozen=True, slots=True)
class SiloCost:
    """What a step costs one silo.

    Attributes:
        batch_seconds: Bottom, top and loss of one micro-batch, forward and backward.
        held_seconds: Of these, how long the interpreter is held: what calling layers costs.
        update_seconds: Of its own blocks, at the step's end.
        message_seconds: A message beside its bytes.
        bytes_per_batch: Of one micro-batch, both directions.
        line: To the worker.
    """

    batch_seconds: float
    held_seconds: float = 0.0
    update_seconds: float = 0.0
    message_seconds: float = 0.0
    bytes_per_batch: float = 0.0
    line: Line = NO_DELAY

    @property
    def crossing_seconds(self) -> float:
        """What the wire takes of a step with one micro-batch: two round trips, and the bytes."""
        return ROUND_TRIPS * self.line.round_trip_seconds + self.line.seconds(self.bytes_per_batch)

    @property
    def busy_seconds(self) -> float:
        """Of one micro-batch, its messages included."""
        return self.batch_seconds + CROSSINGS * self.message_seconds

    @property
    def interpreter_seconds(self) -> float:
        """Of these, how long the interpreter is held."""
        return self.held_seconds + CROSSINGS * self.message_seconds


@dataclass(frozen=True, slots=True)
class TrunkCost:
    """What a step costs the trunk's worker.

    Attributes:
        batch_seconds: One micro-batch of all silos that take part at once, forward and backward.
        update_seconds: At the step's end.
        message_seconds: A message beside its bytes.
        bytes_per_second: Of the worker's own line in one direction; None where it is no limit.
    """

    batch_seconds: float
    update_seconds: float = 0.0
    message_seconds: float = 0.0
    bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """Who shares processors.

    Attributes:
        number: Of parties that can compute at once; None: each has its own, on a machine of its own.
        is_one_process: All parties are threads of one process, whose interpreter serves one at a time.
    """

    number: int | None = None
    is_one_process: bool = False

    def together(self, seconds: Sequence[float], *, held: Sequence[float] = ()) -> float:
        """Return when all of these are done that begin at once.

        Args:
            seconds: Of each.
            held: Of these, how long each holds the interpreter.
        """
        longest = max(seconds, default=0.0)
        if self.number is None:
            return longest
        interpreter = sum(held) if self.is_one_process else 0.0
        return max(longest, sum(seconds) / self.number, interpreter)


OWN_CORES = Cores()


def client_batching_step_seconds(
    silos: Sequence[SiloCost], trunk: TrunkCost, *, micro_batches: int = 1, cores: Cores = OWN_CORES
) -> float:
    """Return the seconds of a step of all silos at once; of a single one where they take turns.

    The silos compute at the same time, the trunk on all their rows while they wait; so a step takes the
    slowest silo, the trunk, and the longest way. What crosses shares the worker's line. Of several
    micro-batches each silo has two under way: every further one takes as long as the busier side, or half
    the way of one.

    Args:
        silos: Who takes part; at least one.
        trunk: With ``batch_seconds`` of all their rows.
        micro_batches: Of the step (``accumulation_steps``).
        cores: Who shares processors.
    """
    ours = cores.together(
        [silo.busy_seconds for silo in silos], held=[silo.interpreter_seconds for silo in silos]
    )
    theirs = trunk.batch_seconds + CROSSINGS * len(silos) * trunk.message_seconds
    ways = max(silo.crossing_seconds for silo in silos)
    if trunk.bytes_per_second is not None:
        ways += sum(silo.bytes_per_batch for silo in silos) / trunk.bytes_per_second
    first = ours + theirs + ways
    further = max(ours, theirs, first / _IN_FLIGHT)
    if cores.number is not None:
        further = max(further, (ours + theirs) / min(cores.number, _IN_FLIGHT))
    updates = cores.together([silo.update_seconds for silo in silos]) + trunk.update_seconds
    return first + (micro_batches - 1) * further + updates


@dataclass(frozen=True, slots=True)
class ReplicaStep:
    """What one replica of the trunk, alone, takes for a step of all its own silos.

    Attributes:
        seconds: From its begin to its end.
        busy_seconds: What its parties compute in it, added up.
        held_seconds: Of these, how long its silos hold the interpreter.
    """

    seconds: float
    busy_seconds: float = 0.0
    held_seconds: float = 0.0


def busy_seconds(silos: Sequence[SiloCost], trunk: TrunkCost, *, micro_batches: int = 1) -> float:
    """Return what all parties of a step compute in it, added up.

    Args:
        silos: Who takes part.
        trunk: With ``batch_seconds`` of all their rows.
        micro_batches: Of the step (``accumulation_steps``).
    """
    batches = sum(silo.busy_seconds for silo in silos) + trunk.batch_seconds
    messages = CROSSINGS * len(silos) * trunk.message_seconds
    updates = sum(silo.update_seconds for silo in silos) + trunk.update_seconds
    return micro_batches * (batches + messages) + updates


def hierarchical_step_seconds(
    replicas: Sequence[ReplicaStep],
    *,
    num_workers: int,
    cores: Cores = OWN_CORES,
    average_seconds: float = 0.0,
    steps_per_round: int = 1,
) -> float:
    """Return the seconds of a step of all silos, dealt to replicas of the trunk that train side by side.

    Args:
        replicas: Each of them.
        num_workers: That host them; with fewer than replicas these take turns, round by round.
        cores: Who shares processors: one replica computes there while another waits.
        average_seconds: Of the trunks, at a round's end.
        steps_per_round: Over which that is spread.
    """
    waves = [replicas[first : first + num_workers] for first in range(0, len(replicas), num_workers)]
    return sum(_side_by_side(wave, cores) for wave in waves) + average_seconds / steps_per_round


def _side_by_side(replicas: Sequence[ReplicaStep], cores: Cores) -> float:
    longest = max(replica.seconds for replica in replicas)
    busy = [replica.busy_seconds for replica in replicas]
    shared = 0.0 if cores.number is None else sum(busy) / cores.number
    held = sum(replica.held_seconds for replica in replicas) if cores.is_one_process else 0.0
    return max(longest, shared, held)


def ideal_gain(num_silos: int, *, round_trip_seconds: float, batch_seconds: float) -> float:
    """Return how much faster than turn by turn a step of all silos at once could be, by the usual bound.

    Taking turns, each silo waits for two round trips and for the whole model's work on its batch, c; at once
    they wait for two round trips together, and for K batches: K (2 RTT + c) / (2 RTT + K c). That the silos'
    own parts overlap where they have processors of their own is left out.

    Args:
        num_silos: K.
        round_trip_seconds: RTT.
        batch_seconds: c, of the whole model on one silo's batch.
    """
    ways = ROUND_TRIPS * round_trip_seconds
    return num_silos * (ways + batch_seconds) / (ways + num_silos * batch_seconds)
