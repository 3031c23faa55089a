"""Rows of a data file: plain text, JSON, JSONL, CSV, TSV. Torch-free, streaming, strict.

Each format is a generator of rows; a row that is wrong ends the reading with a
:class:`~splitlearn.errors.DataError` that names file and line. Blank lines are passed over.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from splitlearn.errors import DataError
from splitlearn.records.columns import ColumnMapping
from splitlearn.records.json_rows import array_rows, begins_an_array, json_object
from splitlearn.records.layouts import Layout, OnBadRow, laid_out
from splitlearn.records.lines import decoded_lines
from splitlearn.records.record import Record


class DataFormat(StrEnum):
    """How a file's rows are written."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"


_FORMAT_BY_SUFFIX = {
    ".txt": DataFormat.TEXT,
    ".text": DataFormat.TEXT,
    ".jsonl": DataFormat.JSONL,
    ".ndjson": DataFormat.JSONL,
    ".json": DataFormat.JSON,
    ".csv": DataFormat.CSV,
    ".tsv": DataFormat.TSV,
}


@dataclass(frozen=True)
class ReadLimits:
    """What one file may hold.

    Attributes:
        max_line_bytes: Longest line.
        max_rows: Most rows.
        max_array_characters: Longest JSON array of rows.
    """

    max_line_bytes: int = 16 << 20
    max_rows: int = 10_000_000
    max_array_characters: int = 256 << 20


DEFAULT_LIMITS = ReadLimits()


def end_reading(error: DataError) -> None:
    """End the reading at the first row that is wrong, as training does."""
    raise error


def read_records(
    path: Path,
    *,
    data_format: DataFormat | None = None,
    layout: Layout = Layout.ROWS,
    columns: ColumnMapping | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
    on_bad_row: OnBadRow = end_reading,
) -> Iterator[Record]:
    """Yield the rows of one file.

    Args:
        path: The file; its suffix says the format unless ``data_format`` does.
        data_format: The format, where the suffix does not say it.
        layout: How rows lie in the file's objects, where one is not simply the other.
        columns: New names of columns, applied to every row.
        limits: What the file may hold.
        on_bad_row: Told of each row that is wrong by itself. What is wrong with the whole file, or leaves
            open where its next row begins, ends the reading in any case.

    Raises:
        DataError: The file is missing, empty, of an unknown format or malformed.
    """
    reader = _READERS[data_format or format_of(path)]
    mapping = columns or ColumnMapping()
    count = num_bad = 0

    def refuse(error: DataError) -> None:
        nonlocal num_bad
        on_bad_row(error)
        num_bad += 1

    for record in laid_out(reader(path, limits, refuse), layout=layout, refuse=refuse):
        count += 1
        if count > limits.max_rows:
            raise DataError(f"{record.where}: more than {limits.max_rows} rows, the limit; split the file")
        try:
            mapped = mapping.apply(record)
        except DataError as error:
            refuse(error)
        else:
            yield mapped
    if not count and not num_bad:
        raise DataError(f"{path}: the file has no rows; give a file with at least one")


def format_of(path: Path) -> DataFormat:
    """Return the format that a path's suffix stands for.

    Raises:
        DataError: The suffix is not known, and the file is there; or it is missing.
    """
    try:
        return _FORMAT_BY_SUFFIX[path.suffix.lower()]
    except KeyError:
        if not path.exists():
            raise DataError(
                f"{path}: cannot read the data (No such file or directory); give the path of a readable file"
            ) from None
        known = ", ".join(_FORMAT_BY_SUFFIX)
        raise DataError(
            f"{path}: the suffix {path.suffix!r} names no known format; "
            f"rename the file to one of {known}, or state the format"
        ) from None


def _read_text(path: Path, limits: ReadLimits, _: OnBadRow) -> Iterator[Record]:
    source = str(path)
    for number, line in enumerate(decoded_lines(path, max_line_bytes=limits.max_line_bytes), 1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield Record({"text": text}, source, number)


def _read_jsonl(path: Path, limits: ReadLimits, refuse: OnBadRow) -> Iterator[Record]:
    yield from _json_lines(path, decoded_lines(path, max_line_bytes=limits.max_line_bytes), refuse)


def _read_json(path: Path, limits: ReadLimits, refuse: OnBadRow) -> Iterator[Record]:
    lines = decoded_lines(path, max_line_bytes=limits.max_array_characters)
    is_array, lines = begins_an_array(lines)
    if is_array:
        yield from array_rows(lines, source=str(path), max_characters=limits.max_array_characters)
    else:
        yield from _json_lines(path, lines, refuse)


def _json_lines(path: Path, lines: Iterator[str], refuse: OnBadRow) -> Iterator[Record]:
    source = str(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            columns = json_object(line, where=f"{source}:{number}")
        except DataError as error:
            refuse(error)
        else:
            yield Record(columns, source, number)


def _read_tsv(path: Path, limits: ReadLimits, refuse: OnBadRow) -> Iterator[Record]:
    lines = decoded_lines(path, max_line_bytes=limits.max_line_bytes)
    rows = (
        (number, line.rstrip("\r\n").split("\t"))
        for number, line in enumerate(lines, 1)
        if line.strip("\r\n")
    )
    return _table(path, rows, refuse)


def _read_csv(path: Path, limits: ReadLimits, refuse: OnBadRow) -> Iterator[Record]:
    return _table(path, _csv_rows(path, limits), refuse)


def _csv_rows(path: Path, limits: ReadLimits) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(decoded_lines(path, max_line_bytes=limits.max_line_bytes), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith("field larger than field limit"):
                raise DataError(
                    f"{path}:{first_line}: a field has more than {csv.field_size_limit()} characters, the "
                    "limit of a CSV field; close every quote, split the text, or write JSONL"
                ) from error
            raise DataError(
                f"{path}:{first_line}: not CSV ({error}), expected comma-separated fields, quoted with "
                f'double quotes and each quote within doubled (""); correct the row, or write JSONL'
            ) from error
        if row:
            yield first_line, row


def _table(path: Path, rows: Iterator[tuple[int, list[str]]], refuse: OnBadRow) -> Iterator[Record]:
    source = str(path)
    header = None
    for number, row in rows:
        if header is None:
            header = _checked_header(row, where=f"{source}:{number}")
        elif len(row) != len(header):
            refuse(
                DataError(
                    f"{source}:{number}: the row has {len(row)} fields, expected {len(header)} as in the "
                    "header; correct the row, or quote the field that holds the separator (CSV)"
                )
            )
        else:
            yield Record(dict(zip(header, row, strict=True)), source, number)


def _checked_header(row: list[str], *, where: str) -> list[str]:
    header = [name.strip() for name in row]
    if not all(header):
        raise DataError(
            f"{where}: column {header.index('') + 1} of the header has no name; name every column"
        )
    doubled, times = Counter(header).most_common(1)[0]
    if times > 1:
        raise DataError(f"{where}: the header has {times} columns {doubled!r}; rename all but one")
    return header


_READERS: dict[DataFormat, Callable[[Path, ReadLimits, OnBadRow], Iterator[Record]]] = {
    DataFormat.TEXT: _read_text,
    DataFormat.JSON: _read_json,
    DataFormat.JSONL: _read_jsonl,
    DataFormat.CSV: _read_csv,
    DataFormat.TSV: _read_tsv,
}
