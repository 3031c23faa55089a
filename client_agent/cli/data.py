"""``trunkline-agent data``: which files this silo trains on. Nothing but counts is ever told to others."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import show, show_json, show_rows
from client_agent.data import ANY_TASK, Dataset, DatasetRegistry, TaskKind
from splitlearn.errors import DataError
from splitlearn.identity import is_name
from splitlearn.records import ColumnMapping, DataFormat, format_of, read_records

app = typer.Typer(
    name="data", help="The files that this silo trains on; they stay where they are.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="What jobs call the data set.")]
_MAX_SHOWN_CHARACTERS = 200


@app.command("add", epilog="Example: trunkline-agent data add reviews reviews.tsv --columns text=sentence")
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Plain text, JSONL, CSV or TSV; it is read to its end.")],
    *,
    data_format: Annotated[
        DataFormat | None, typer.Option("--format", help="Where the suffix does not say it.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="New names of columns: NAME=COLUMN,NAME=COLUMN.")
    ] = None,
    task: Annotated[TaskKind, typer.Option(help="Give it to tasks of this kind only.")] = ANY_TASK,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the one of this name.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Register a file; every bad row is reported with its line."""
    if not is_name(name):
        raise DataError(f"the name {name!r} is not 1 to 64 of a-z 0-9 . _ -; choose another")
    path = file.expanduser().absolute()
    dataset = Dataset.read(
        name,
        path,
        data_format=data_format or format_of(path),
        columns=ColumnMapping.parse(columns) if columns else ColumnMapping(),
        task=task,
    )
    DatasetRegistry(resolved(state_dir)).put(dataset, replace=replace)
    show(_described(dataset), as_json=as_json, text=_summary(dataset))


@app.command("list", epilog="Example: trunkline-agent data list --json")
def list_datasets(*, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """List the data sets; name, task, rows and schema digest are what others are told."""
    rows = [_described(dataset) for dataset in DatasetRegistry(resolved(state_dir)).all()]
    show_rows(rows, ["name", "task", "num_rows", "format", "path", "state"], as_json=as_json)


@app.command("preview", epilog="Example: trunkline-agent data preview reviews -n 3")
def preview(
    name: Name,
    *,
    num_rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1000, help="How many rows.")] = 5,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the first rows, on this terminal only."""
    dataset = DatasetRegistry(resolved(state_dir)).get(name)
    records = read_records(dataset.path, data_format=dataset.data_format, columns=dataset.mapping)
    rows = [dict(record.columns) for record in islice(records, num_rows)]
    if as_json:
        show_json(rows)
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    show_rows([{c: _shortened(row.get(c)) for c in columns} for row in rows], columns, as_json=False)


@app.command("remove", epilog="Example: trunkline-agent data remove reviews")
def remove(name: Name, *, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """Withdraw a data set; its file stays."""
    DatasetRegistry(resolved(state_dir)).remove(name)
    show({"removed": name}, as_json=as_json, text=f"removed {name}; the file stays")


def _summary(dataset: Dataset) -> str:
    """Say what was found; what a column of text would not have, too: a job that asks for it is refused."""
    kinds = dataset.column_kinds.items()
    columns = (name if found == ("text",) else f"{name} ({', '.join(found)})" for name, found in kinds)
    return "\n".join(
        [
            f"added {dataset.name}: {dataset.num_rows} rows, columns {', '.join(columns)}",
            *(
                f"column {name}: missing in {count} of {dataset.num_rows} rows"
                for name, count in dataset.missing.items()
            ),
        ]
    )


def _described(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "task": dataset.task,
        "num_rows": dataset.num_rows,
        "schema_digest": dataset.schema_digest,
        "format": dataset.data_format.value,
        "path": str(dataset.path),
        "columns": {name: list(kinds) for name, kinds in dataset.column_kinds.items()},
        "missing": dataset.missing,
        "state": _state(dataset),
    }


def _state(dataset: Dataset) -> str:
    try:
        return "changed since it was added" if dataset.has_changed else "as added"
    except DataError:
        return "file is gone"


def _shortened(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 3] + "..."
