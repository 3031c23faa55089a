"""Means over seeds with the interval that the bootstrap gives them. Pure.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13): the mean of as
many values drawn with replacement, again and again; the interval holds 95 % of these means. Up to six values
every possible draw is taken, so nothing depends on chance. With few seeds such an interval is too narrow, if
anything: it knows no other values than those that it has seen.
"""

import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MAX_EXACT = 6
_DRAWS = 20_000
_COVERAGE = 0.95
_MIN_VALUES = 2


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where it may lie.

    Attributes:
        mean: Of the values.
        low: Lower end of the 95 % interval; None for a single value.
        high: Upper end.
    """

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the mean of some finite values with its bootstrap interval; None for no value."""
    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) < _MIN_VALUES:
        return Interval(mean, None, None)
    means = sorted(_means(values))
    tail = (1 - _COVERAGE) / 2
    return Interval(mean, quantile(means, tail), quantile(means, 1 - tail))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which this share of ordered values lies, between two in proportion."""
    place = share * (len(ordered) - 1)
    below, rest = int(place), place - int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + rest * (ordered[above] - ordered[below])


def _means(values: Sequence[float]) -> Iterator[float]:
    count = len(values)
    if count <= _MAX_EXACT:
        for drawn in itertools.product(values, repeat=count):
            yield math.fsum(drawn) / count
        return
    chance = random.Random(0)  # noqa: S311 - repeatable on purpose, guards no secret
    for _ in range(_DRAWS):
        yield math.fsum(values[int(chance.random() * count)] for _ in range(count)) / count
