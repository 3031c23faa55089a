"""How every benchmark shows and keeps its results."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from splitlearn.errors import StorageError
from splitlearn.simulation import json_files

Row = Mapping[str, Any]


def json_path(text: str) -> Path:
    """Read the value of ``--json``; refused at once, not after the measurement, if it cannot be written."""
    path = Path(text)
    try:
        json_files.refuse_unwritable(path)
    except StorageError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return path


def positive(text: str) -> int:
    """Read a count of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def say(line: str) -> None:
    """Tell the person who waits how far it is, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def write_json(path: Path, *, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """Write ``{"rows": [...], "machine": {...}}``, whole or not at all."""
    json_files.write_json(path, {"rows": [dict(row) for row in rows], "machine": dict(machine)})
