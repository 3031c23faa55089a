"""Which silos train when: the schedules as a list of turns, free of I/O.

The order is the roster's, never that of arrival, so that two runs of one specification are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from splitlearn.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Turn:
    """A run of optimiser steps that the same silos take part in.

    Attributes:
        round: Round, from 1.
        silos: Names, in the roster's order; several are batched into one step of the trunk.
        first_step: Global optimiser step, from 0.
        num_steps: Steps.
    """

    round: int
    silos: tuple[str, ...]
    first_step: int
    num_steps: int


def turns_of_round(spec: JobSpec, round_number: int) -> Iterator[Turn]:
    """Yield the training turns of one round.

    Client-batching: one turn of all silos. Serial: the silos take turns of ``turn_steps``, beginning
    with another silo each round, until each has done ``steps_per_round``.

    Args:
        spec: The job.
        round_number: From 1.
    """
    names = tuple(silo.name for silo in spec.silos)
    if spec.schedule == "client-batching":
        yield Turn(round_number, names, (round_number - 1) * spec.steps_per_round, spec.steps_per_round)
        return
    shift = (round_number - 1) % len(names)
    order = names[shift:] + names[:shift]
    step = (round_number - 1) * spec.steps_per_round * len(names)
    turn_steps = spec.turn_steps or spec.steps_per_round
    for done in range(0, spec.steps_per_round, turn_steps):
        num_steps = min(turn_steps, spec.steps_per_round - done)
        for name in order:
            yield Turn(round_number, (name,), step, num_steps)
            step += num_steps


def evaluates_after(spec: JobSpec, round_number: int) -> bool:
    """Return whether the silos evaluate at the end of this round; after the last one they always do."""
    every = spec.evaluation.every_rounds
    return round_number == spec.rounds or (every > 0 and round_number % every == 0)
