"""Which rows are held out for evaluation. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitlearn.errors import DataError
from splitlearn.tasks.chance import keyed_fraction
from splitlearn.tasks.rows import Example

_MIN_ROWS = 2


@dataclass(frozen=True)
class Split:
    """A data set in two parts, each in the order of the data and not empty."""

    training: tuple[Example, ...]
    heldout: tuple[Example, ...]


def split_holdout(
    examples: Sequence[Example], *, share: float, seed: int, silo_name: str, source: str = ""
) -> Split:
    """Hold out about a share of the examples, by a hash of (seed, silo, the row's texts).

    A row is held out or not whatever else the data set holds: rows added later move no other row, and
    equal rows, and rows of one group, are on the same side. Only where the hash would leave one side empty,
    the one row nearest to the border changes sides.

    Args:
        examples: All examples of one silo.
        share: Share to hold out, in (0, 1).
        seed: The job's seed.
        silo_name: Names the silo, so that silos with equal rows do not hold out the same.
        source: Where the rows come from, for the message.

    Raises:
        DataError: Fewer than two examples.
    """
    if len(examples) < _MIN_ROWS:
        where = f"{source}: " if source else ""
        raise DataError(
            f"{where}silo {silo_name!r}: {len(examples)} usable rows, needs at least {_MIN_ROWS}: one to "
            "train on and one held out; add rows, or raise max_tokens if rows were dropped"
        )
    draws = [
        keyed_fraction("holdout", seed, silo_name, example.group or example.fingerprint)
        for example in examples
    ]
    order = sorted(range(len(examples)), key=lambda index: (draws[index], index))
    chosen = {index for index in order if draws[index] < share} or {order[0]}
    if len(chosen) == len(examples):
        chosen.remove(order[-1])
    return Split(
        training=tuple(example for index, example in enumerate(examples) if index not in chosen),
        heldout=tuple(example for index, example in enumerate(examples) if index in chosen),
    )
