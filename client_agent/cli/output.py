"""How commands print, and how errors become exit codes."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from splitlearn.errors import TrunklineError
from splitlearn.simulation.exit_codes import INTERRUPTED

PROGRAM = "trunkline-agent"
_ONE_LINE_PER_ROW = 4096  # characters: where no terminal limits it, a row is a line that grep finds whole


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print expected errors as one sentence on standard error, and end with their exit code."""
    try:
        yield
    except TrunklineError as error:
        typer.echo(f"{PROGRAM}: {error.message}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def show(value: Mapping[str, Any], *, as_json: bool, text: str | None = None) -> None:
    """Print one value: as JSON for programs, else a text or its fields."""
    if as_json:
        show_json(value)
    elif text is not None:
        typer.echo(text)
    else:
        width = max(map(len, value), default=0)
        for name, field in value.items():
            typer.echo(f"{name.replace('_', ' '):<{width}}  {'-' if field is None else field}")


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list: as JSON for programs, else a table of some of its columns."""
    if as_json:
        show_json(list(rows))
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), no_wrap=name == "id", overflow="fold")
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in columns))
    width = None if sys.stdout.isatty() else _ONE_LINE_PER_ROW
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)


def show_json(value: Any) -> None:
    """Print JSON for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
