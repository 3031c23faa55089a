"""Deal the rows of one file out to silos, unevenly, the same way every time. Torch-free."""

from collections.abc import Iterable, Sequence

from splitlearn.errors import DataError
from splitlearn.tasks import Record, keyed_fraction

MIN_ROWS = 4  # one to train on, one held out, and some room for rows that are dropped


def harmonic_shares(num_silos: int) -> tuple[float, ...]:
    """Return each silo's share of the rows: the i-th gets one part in i, so 0.55, 0.27, 0.18 for three."""
    parts = [1 / number for number in range(1, num_silos + 1)]
    return tuple(part / sum(parts) for part in parts)


def deal(
    records: Iterable[Record],
    *,
    num_silos: int,
    seed: int,
    shares: Sequence[float] | None = None,
    min_rows: int = MIN_ROWS,
) -> tuple[tuple[Record, ...], ...]:
    """Deal rows to silos, each row by a hash of (seed, its number), and keep their order.

    Where a silo is left with fewer than ``min_rows``, the last rows of the largest silo go over to it.

    Args:
        records: All rows.
        num_silos: Number of silos, at least 1.
        seed: Changes who gets which row.
        shares: Expected share of each silo, positive; they are scaled to sum up to one. None for
            :func:`harmonic_shares`.
        min_rows: Least rows of every silo.

    Returns:
        The rows of each silo; every row belongs to exactly one.

    Raises:
        DataError: Too few rows, or the shares are not one positive number per silo.
    """
    chosen = harmonic_shares(num_silos) if shares is None else tuple(shares)
    if len(chosen) != num_silos or min(chosen, default=0) <= 0:
        raise DataError(f"shares: {chosen} are not {num_silos} positive numbers; give one per silo")
    rows = list(records)
    if len(rows) < num_silos * min_rows:
        raise DataError(
            f"{len(rows)} rows are too few for {num_silos} silos of at least {min_rows} rows; "
            f"give {num_silos * min_rows} rows or fewer silos"
        )
    dealt: list[list[int]] = [[] for _ in range(num_silos)]
    for number in range(len(rows)):
        dealt[_silo_of(keyed_fraction("deal", seed, number), chosen)].append(number)
    _level(dealt, min_rows=min_rows)
    return tuple(tuple(rows[number] for number in sorted(numbers)) for numbers in dealt)


def _silo_of(draw: float, shares: Sequence[float]) -> int:
    left = draw * sum(shares)
    for index, share in enumerate(shares):
        left -= share
        if left < 0:
            return index
    return len(shares) - 1


def _level(dealt: list[list[int]], *, min_rows: int) -> None:
    for numbers in dealt:
        while len(numbers) < min_rows:
            numbers.append(max(dealt, key=len).pop())
