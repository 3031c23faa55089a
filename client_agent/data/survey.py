"""Reads a data file once, from its first row to its last: how many rows, which columns, which bad lines."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from splitlearn.errors import DataError
from splitlearn.records import ColumnMapping, DataFormat, Layout, Record, read_records

MAX_BAD_ROWS_SHOWN = 20
_SCHEMA_CONTEXT = b"trunkline/dataset-schema/v1\0"


class BadRowsError(DataError):
    """Rows of a file are wrong; the message counts them and shows the first.

    Attributes:
        sentences: One for each of the first bad rows, with its line.
        num_bad: How many there are.
    """

    code = "bad_rows"

    def __init__(self, path: Path, sentences: list[str], *, num_bad: int) -> None:
        rest = f"\n... and {num_bad - len(sentences)} more" if num_bad > len(sentences) else ""
        super().__init__(
            f"{path}: {num_bad} bad rows; correct or remove them, then add the file again:\n"
            + "\n".join(sentences)
            + rest
        )
        self.sentences = sentences
        self.num_bad = num_bad


@dataclass(frozen=True, slots=True)
class Survey:
    """What a whole file holds, without a value of it.

    Attributes:
        num_rows: Rows, at least one.
        columns: Sorted kinds of value (``text``, ``number``, ...) by column, columns sorted.
        missing: How many rows lack a column that others have, by column, columns sorted.
        num_bytes, modified_ns: Of the file, before it was read: another pair means another file.
    """

    num_rows: int
    columns: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, int]
    num_bytes: int
    modified_ns: int

    @property
    def schema_digest(self) -> str:
        """SHA-256 over the columns' names and kinds, in hexadecimal; no value is part of it."""
        schema = json.dumps([[name, *kinds] for name, kinds in self.columns.items()], ensure_ascii=False)
        return hashlib.sha256(_SCHEMA_CONTEXT + schema.encode()).hexdigest()


def survey(
    path: Path, *, data_format: DataFormat, columns: ColumnMapping, layout: Layout = Layout.ROWS
) -> Survey:
    """Read every row of a file.

    Raises:
        BadRowsError: Rows are wrong; all were looked at.
        DataError: The file is missing, empty, or wrong as a whole.
    """
    num_bytes, modified_ns = file_state(path)
    bad = _BadRows()
    try:
        num_rows, kinds, present = _count(
            read_records(path, data_format=data_format, layout=layout, columns=columns, on_bad_row=bad.add)
        )
    except DataError as error:  # where the next row begins is not known
        if not bad.num_bad:
            raise
        bad.add(error)
    if bad.num_bad:
        raise BadRowsError(path, bad.sentences, num_bad=bad.num_bad)
    found = {name: tuple(sorted(kinds[name])) for name in sorted(kinds)}
    missing = {name: num_rows - present[name] for name in found if present[name] < num_rows}
    return Survey(num_rows, found, missing, num_bytes, modified_ns)


def file_state(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and its time of modification in nanoseconds.

    Raises:
        DataError: No such file.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the data ({error.strerror}); give the path of a readable file"
        ) from error
    return state.st_size, state.st_mtime_ns


class _BadRows:
    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.num_bad = 0

    def add(self, error: DataError) -> None:
        self.num_bad += 1
        if len(self.sentences) < MAX_BAD_ROWS_SHOWN:
            self.sentences.append(error.message)


def _count(records: Iterable[Record]) -> tuple[int, Mapping[str, set[str]], Mapping[str, int]]:
    """Return the number of rows, the kinds of value by column, and the number of rows that have it."""
    kinds: dict[str, set[str]] = defaultdict(set)
    present: Counter[str] = Counter()
    num_rows = 0
    for record in records:
        num_rows += 1
        present.update(record.columns.keys())
        for name, value in record.columns.items():
            kinds[name].add(_kind(value))
    return num_rows, kinds, present


def _kind(value: object) -> str:
    match value:
        case str():
            return "text"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case None:
            return "null"
        case list():
            return "list"
        case _:
            return "object"
