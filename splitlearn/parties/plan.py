"""Which silos train when: the schedules as a list of turns, free of I/O.

The order is the roster's, never that of arrival, so that two runs of one specification are the same.
"""

from collections.abc import Collection, Iterator
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


def turns_of_round(
    spec: JobSpec, round_number: int, *, replica: int = 0, present: Collection[str] | None = None
) -> Iterator[Turn]:
    """Yield the training turns of one round at one trunk.

    Client-batching: one turn of all silos, or several with an average of their blocks after each.
    Serial: the silos take turns of ``turn_steps``, beginning
    with another silo each round, until each has done ``steps_per_round``. Who is lost leaves a gap: the
    others' turns and the numbers of their steps stay what they were.
    Hierarchical: each replica does either with its own silos, all from the same global step on.

    Args:
        spec: The job.
        round_number: From 1.
        replica: Which trunk, from 0.
        present: Silos that still take part; None for the whole roster.
    """
    names = spec.shares[replica]
    step = (round_number - 1) * spec.global_steps_per_round
    if not spec.takes_turns:
        here = tuple(name for name in names if present is None or name in present)
        pace = _steps_between_averages(spec)
        for done in range(0, spec.steps_per_round if here else 0, pace):
            yield Turn(round_number, here, step + done, min(pace, spec.steps_per_round - done))
        return
    shift = (round_number - 1) % len(names)
    order = names[shift:] + names[:shift]
    turn_steps = spec.turn_steps or spec.steps_per_round
    for done in range(0, spec.steps_per_round, turn_steps):
        num_steps = min(turn_steps, spec.steps_per_round - done)
        for name in order:
            if present is None or name in present:
                yield Turn(round_number, (name,), step, num_steps)
            step += num_steps


def averages_after(spec: JobSpec, turn: Turn) -> int | None:
    """Return each silo's steps of the round, where the blocks are averaged after this turn; else None."""
    if spec.silo_blocks != "averaged":
        return None
    done = turn.first_step + turn.num_steps - (turn.round - 1) * spec.global_steps_per_round
    if not spec.takes_turns:
        return done
    in_turns = spec.shares[spec.replica_of(turn.silos[0])]
    return spec.steps_per_round if done == spec.steps_per_round * len(in_turns) else None


def _steps_between_averages(spec: JobSpec) -> int:
    return spec.averaging.every_steps or spec.steps_per_round


def evaluates_finished(spec: JobSpec, round_number: int) -> bool:
    """Return whether silos evaluate a round when nothing of it is left to be done.

    Round 0 is what the job begins with, and replicas are averaged once their silos have saved the round. Any
    other round is evaluated before it is saved.
    """
    return round_number == 0 or spec.schedule == "hierarchical"


def evaluates_after(spec: JobSpec, round_number: int) -> bool:
    """Return whether the silos evaluate at the end of this round; after the last one they always do.

    Args:
        spec: The job.
        round_number: 0 stands for the job's begin, before step 1.
    """
    every = spec.evaluation.every_rounds
    if round_number == 0:
        return spec.evaluation.before_training
    return round_number == spec.rounds or (every > 0 and round_number % every == 0)
