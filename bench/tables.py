"""How every benchmark shows and keeps its results."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def json_path(text: str) -> Path:
    """Read the value of ``--json``; refused at once, not after the measurement, if it cannot be written."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written; name a file in a folder that exists")
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
    text = json.dumps({"rows": [dict(row) for row in rows], "machine": dict(machine)}, indent=2) + "\n"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
