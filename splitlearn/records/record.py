"""One row of a data set, with the place that it came from. Torch-free."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from splitlearn.errors import DataError, StorageError

_MAX_NAMES_SHOWN = 20


class MissingColumnError(DataError):
    """A template asks for a column that a row lacks.

    Attributes:
        column: Its name.
    """

    code = "missing_column"

    def __init__(self, message: str, *, column: str) -> None:
        super().__init__(message)
        self.column = column
        self.public = f"there is no column {column!r} in some rows"


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its columns, and where it stands.

    Attributes:
        columns: Value by column name. Text formats hold strings; JSON values stay as they were.
        source: File path, or a word for data that was made and not read.
        line: Line of the source on which the row begins, from 1.
    """

    columns: Mapping[str, object]
    source: str
    line: int

    @property
    def where(self) -> str:
        """Source and line, as every message about this row begins."""
        return f"{self.source}:{self.line}"

    def __repr__(self) -> str:
        """Say place and columns and no value: rows are private text."""
        return f"Record({self.where}, columns {known_names(self.columns)})"

    def text(self, column: str) -> str:
        """Return a column's value as text: strings as they are, numbers and booleans as JSON writes them.

        Raises:
            MissingColumnError: No such column in this row.
            DataError: Its value is null, a list or an object.
        """
        if column not in self.columns:
            raise MissingColumnError(
                f"{self.where}: no column {column!r}; the row has {known_names(self.columns)}; "
                "correct the name or map it (--columns NAME=COLUMN)",
                column=column,
            )
        value = self.columns[column]
        text = plain_text(value)
        if text is None:
            raise DataError(
                f"{self.where}: column {column!r} holds {json_kind(value)}, expected text, a number or a "
                "boolean; write the part that is wanted into a column of its own, or join a list "
                '({column|join ", "})'
            )
        return text


def plain_text(value: object) -> str | None:
    """Return text as it is, numbers and booleans as JSON writes them; None for anything else."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def known_names(names: Iterable[str]) -> str:
    """Return names quoted and joined for a message, at most twenty of them."""
    listed = [repr(name) for name in names]
    if not listed:
        return "none"
    rest = len(listed) - _MAX_NAMES_SHOWN
    return ", ".join(listed[:_MAX_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write rows as JSONL, the file whole or not at all.

    Returns:
        The number of rows written.

    Raises:
        StorageError: The file cannot be written; nothing is left behind.
    """
    count = 0
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as file:
            temporary = Path(file.name)
            for record in records:
                file.write(json.dumps(dict(record.columns), ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot write the rows ({error.strerror}); free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return count


def json_kind(value: object) -> str:
    """Return what JSON calls a value, for a message."""
    match value:
        case None:
            return "null"
        case str():
            return "a text"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
