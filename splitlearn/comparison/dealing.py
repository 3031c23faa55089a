"""Deal one file's rows out to silos, each with more of some kinds of rows than of others.

Every row goes its way by a hash of (seed, its number), so that the same file is always dealt out alike.
"""

from collections.abc import Sequence

from splitlearn.comparison.source import Skew, Split
from splitlearn.errors import DataError
from splitlearn.records import Record
from splitlearn.simulation.dealing import MIN_ROWS, deal, harmonic_shares
from splitlearn.tasks import keyed_fraction

MAX_KINDS = 64


def dealt(records: Sequence[Record], split: Split) -> tuple[tuple[Record, ...], ...]:
    """Return the rows of each silo, in the order of the file; every row belongs to at most one.

    Args:
        records: All rows of the file.
        split: How they are dealt out.

    Raises:
        DataError: Too few rows for so many silos, a column is missing, or it has too many values.
    """
    rows = _drawn(records, split)
    if split.skew is None:
        return deal(rows, num_silos=len(split.silos), seed=split.seed, shares=split.shares)
    shares = split.shares or harmonic_shares(len(split.silos))
    homes = _homes([_kind(row, split.skew) for row in rows], split.skew, num_silos=len(split.silos))
    parts: list[list[Record]] = [[] for _ in split.silos]
    for number, (row, home) in enumerate(zip(rows, homes, strict=True)):
        stays = keyed_fraction("compare home", split.seed, number) < split.skew.strength
        chosen = home if home and stays else range(len(shares))
        draw = keyed_fraction("compare silo", split.seed, number)
        parts[_silo_of(draw, [(silo, shares[silo]) for silo in chosen])].append(row)
    for name, part in zip(split.silos, parts, strict=True):
        if len(part) < MIN_ROWS:
            raise DataError(
                f"{split.file}: silo {name!r} gets {len(part)} of {len(rows)} rows, and needs {MIN_ROWS}; "
                "give more rows, another kind of skew, or less strength"
            )
    return tuple(map(tuple, parts))


def _drawn(records: Sequence[Record], split: Split) -> list[Record]:
    if split.max_rows is None or len(records) <= split.max_rows:
        return list(records)
    order = sorted(range(len(records)), key=lambda number: keyed_fraction("compare rows", split.seed, number))
    return [records[number] for number in sorted(order[: split.max_rows])]


def _kind(row: Record, skew: Skew) -> str | None:
    """Return what kind of row this is; None for one without a home."""
    if not skew.words:
        assert skew.column is not None, "Skew names a column or words"
        return row.text(skew.column)
    texts = [row.text(skew.column)] if skew.column is not None else map(str, row.columns.values())
    text = "\n".join(texts).casefold()
    return next((word for word in skew.words if word.casefold() in text), None)


def _homes(kinds: Sequence[str | None], skew: Skew, *, num_silos: int) -> list[tuple[int, ...]]:
    """Return each row's homes: kinds and silos are laid side by side, the shorter list again and again."""
    known = [*skew.words] or sorted({kind for kind in kinds if kind is not None})
    if len(known) > MAX_KINDS:
        raise DataError(
            f"skew: column {skew.column!r} has {len(known)} different values, the limit is {MAX_KINDS}; "
            "choose a column with fewer, or give words to look for in it"
        )
    home_of: dict[str | None, tuple[int, ...]] = {None: ()}
    for index, kind in enumerate(known):
        silos = range(index, num_silos, len(known)) if index < num_silos else [index % num_silos]
        home_of[kind] = tuple(silos)
    return [home_of[kind] for kind in kinds]


def _silo_of(draw: float, shares: Sequence[tuple[int, float]]) -> int:
    left = draw * sum(share for _, share in shares)
    for silo, share in shares:
        left -= share
        if left < 0:
            return silo
    return shares[-1][0]
