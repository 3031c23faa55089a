"""Axes of the plots: which values get a tick, and where a value lies. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1, 2, 2.5, 5, 10)
_MARGIN = 0.06  # of the range, on both sides
_DEGENERATE = 1e-12


@dataclass(frozen=True)
class Axis:
    """A range of values laid over a range of places.

    Attributes:
        low: Value at ``begin``.
        high: Value at ``end``.
        begin: Place, in the drawing's units.
        end: Place; may lie before ``begin``, as it does where values grow upward.
    """

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value lies, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """Return round values within the range, at most so many."""
        step = next(
            size
            for size in _sizes((self.high - self.low) / most)
            if math.floor(self.high / size) - math.ceil(self.low / size) < most
        )
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return tuple(number * step for number in range(first, last + 1))


def axis_over(values: Iterable[float], *, begin: float, end: float, with_zero: bool = False) -> Axis:
    """Return an axis that shows all values, with some room on both sides.

    Args:
        values: At least one, finite.
        begin: Place of the low end.
        end: Place of the high end.
        with_zero: Whether zero must be on it.
    """
    listed = [*values, *([0.0] if with_zero else [])]
    low, high = min(listed), max(listed)
    room = (high - low) * _MARGIN
    if high - low < _DEGENERATE:
        room = max(abs(high) * _MARGIN, _DEGENERATE * 1e6)
    return Axis(low - room, high + room, begin, end)


def labels_of(ticks: Sequence[float]) -> tuple[str, ...]:
    """Return the ticks in as few digits as tell them apart."""
    for digits in range(7):
        labels = tuple(f"{tick:.{digits}f}" for tick in ticks)
        exact = all(
            abs(float(label) - tick) < 1e-9 + abs(tick) * 1e-6
            for label, tick in zip(labels, ticks, strict=True)
        )
        if exact and len(set(labels)) == len(labels):
            return tuple(label.removeprefix("-") if float(label) == 0 else label for label in labels)
    return tuple(f"{tick:g}" for tick in ticks)


def _sizes(least: float) -> Iterable[float]:
    power = math.floor(math.log10(least))
    while True:
        for step in _STEPS:
            size = step * 10.0**power
            if size >= least * 0.999:
                yield size
        power += 1
