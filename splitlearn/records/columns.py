"""Renaming a file's columns to the names that templates use. Torch-free."""

from collections import Counter
from dataclasses import dataclass
from typing import Self

from splitlearn.errors import DataError
from splitlearn.records.record import Record, known_names

_EXAMPLE = 'expected NAME=COLUMN pairs, such as "text=sentence,label=gold"'


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of the file each name stands for; columns that are not mapped keep their own name.

    Attributes:
        pairs: (name in templates, column in the file).
    """

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"text=sentence,label=gold"``: the name on the left stands for the column on the right.

        Raises:
            DataError: A pair has no ``=`` or an empty side, or a name or column occurs twice.
        """
        pairs = []
        for part in text.split(","):
            name, equals, column = (piece.strip() for piece in part.partition("="))
            if not (name and equals and column):
                raise DataError(f"column mapping {text!r}: {part!r} is no pair; {_EXAMPLE}")
            pairs.append((name, column))
        for side, word in ((0, "name"), (1, "column")):
            seen, times = Counter(pair[side] for pair in pairs).most_common(1)[0]
            if times > 1:
                raise DataError(
                    f"column mapping {text!r}: the {word} {seen!r} occurs {times} times; keep one of them"
                )
        return cls(tuple(pairs))

    def apply(self, record: Record) -> Record:
        """Return the row under its new names; all pairs apply at once, so columns can be swapped.

        Raises:
            DataError: The row lacks a mapped column, or a new name is that of another column.
        """
        if not self.pairs:
            return record
        names = {column: name for name, column in self.pairs}
        missing = [column for column in names if column not in record.columns]
        if missing:
            raise DataError(
                f"{record.where}: no column {missing[0]!r}, which is mapped to {names[missing[0]]!r}; "
                f"the row has {known_names(record.columns)}; correct the mapping"
            )
        renamed = {names.get(column, column): value for column, value in record.columns.items()}
        if len(renamed) < len(record.columns):
            taken = [name for name in names.values() if name in record.columns and name not in names]
            raise DataError(
                f"{record.where}: the row has a column {taken[0]!r} already; map that one to another name too"
            )
        return Record(renamed, record.source, record.line)
