"""How commands print, and how errors become exit codes."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from backend.errors import ApiError
from backend.settings import Settings
from splitlearn.errors import TrunklineError
from splitlearn.setting_errors import setting_sentences

REFUSED_EXIT_CODE = 12
USAGE_EXIT_CODE = 2


class CommandError(Exception):
    """A command ends with this sentence on standard error.

    Args:
        message: What was refused and why.
        remedy: What to do next.
        exit_code: What the process ends with.
    """

    def __init__(
        self, message: str, *, remedy: str | None = None, exit_code: int = REFUSED_EXIT_CODE
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code


_ONE_LINE_PER_ROW = 4096  # characters: where no terminal limits it, a row is a line that grep finds whole


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print expected errors as one sentence, and end with their exit code."""
    try:
        yield
    except CommandError as error:
        _end(error.message, error.remedy, error.exit_code)
    except ApiError as error:
        _end(error.message, error.remedy, REFUSED_EXIT_CODE)
    except TrunklineError as error:
        _end(error.message, None, error.exit_code)
    except ValidationError as error:
        for sentence in setting_sentences(error, Settings):
            typer.echo(f"trunkline: {sentence}", err=True)
        raise SystemExit(USAGE_EXIT_CODE) from None


def show(value: Any, *, as_json: bool, text: str | None = None) -> None:
    """Print one value: as JSON for programs, else a text or its fields."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif text is not None:
        typer.echo(text)
    else:
        for name, field in value.items():
            typer.echo(f"{name}: {field}")


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list: as JSON for programs, else a table."""
    if as_json:
        typer.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in {"id", "name"}, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    width = None if sys.stdout.isatty() else _ONE_LINE_PER_ROW
    Console(file=sys.stdout, width=width).print(table)


def _end(message: str, remedy: str | None, exit_code: int) -> NoReturn:
    typer.echo(f"trunkline: {message}", err=True)
    if remedy:
        typer.echo(f"  {remedy}", err=True)
    raise SystemExit(exit_code)
