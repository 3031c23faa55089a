"""``trunkline-agent data``: which files this silo trains on. Nothing but counts is ever told to others."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import show, show_json, show_rows
from client_agent.cli.previewing import EPILOG as PREVIEW_EPILOG
from client_agent.cli.previewing import preview
from client_agent.data import ANY_TASK, Dataset, DatasetRegistry, TaskKind
from splitlearn.errors import DataError
from splitlearn.identity import is_name
from splitlearn.presets import PRESETS, Preset, find_preset
from splitlearn.records import ColumnMapping, DataFormat, Layout, format_of, known_names

app = typer.Typer(
    name="data", help="The files that this silo trains on; they stay where they are.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="What jobs call the data set.")]
app.command("preview", epilog=PREVIEW_EPILOG)(preview)


@app.command("add", epilog="Example: trunkline-agent data add reviews reviews.tsv --columns text=sentence")
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Plain text, JSON, JSONL, CSV or TSV; it is read to its end.")],
    *,
    data_format: Annotated[
        DataFormat | None, typer.Option("--format", help="Where the suffix does not say it.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="New names of columns: NAME=COLUMN,NAME=COLUMN.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Read it as its publisher gives it; see: trunkline-agent data presets.")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="How rows lie in its objects, where one is not simply the other.")
    ] = None,
    task: Annotated[
        TaskKind | None,
        typer.Option(help="Give it to tasks of this kind only. Default: the preset's, or any."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In place of the one of this name.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Register a file; every bad row is reported with its line."""
    if not is_name(name):
        raise DataError(f"the name {name!r} is not 1 to 64 of a-z 0-9 . _ -; choose another")
    path = file.expanduser().absolute()
    found = find_preset(preset) if preset is not None else None
    if found is not None and task not in (None, ANY_TASK, found.task.kind):
        raise DataError(
            f"--task {task} and --preset {found.name} contradict each other: the preset is "
            f"{found.task.kind}; leave out one of the two"
        )
    dataset = Dataset.read(
        name,
        path,
        data_format=data_format or format_of(path),
        columns=ColumnMapping.parse(columns) if columns else ColumnMapping(),
        task=task or (found.task.kind if found else ANY_TASK),
        layout=layout or (found.layout if found else Layout.ROWS),
        preset=preset,
    )
    if found is not None:
        _refuse_other_columns(found, dataset)
    DatasetRegistry(resolved(state_dir)).put(dataset, replace=replace)
    show(_described(dataset), as_json=as_json, text=_summary(dataset))


@app.command("list", epilog="Example: trunkline-agent data list --json")
def list_datasets(*, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """List the data sets; name, task, rows and schema digest are what others are told."""
    rows = [_described(dataset) for dataset in DatasetRegistry(resolved(state_dir)).all()]
    show_rows(rows, ["name", "task", "num_rows", "format", "path", "state"], as_json=as_json)


@app.command("remove", epilog="Example: trunkline-agent data remove reviews")
def remove(name: Name, *, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """Withdraw a data set; its file stays."""
    DatasetRegistry(resolved(state_dir)).remove(name)
    show({"removed": name}, as_json=as_json, text=f"removed {name}; the file stays")


@app.command("presets", epilog="Example: trunkline-agent data presets boolq")
def presets(
    name: Annotated[str | None, typer.Argument(help="One of them, with all its parts.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the data sets that are known by name; the task is what a job's specification takes."""
    if name is not None:
        found = find_preset(name).to_json()
        show(found, as_json=as_json, text=json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [preset.to_json() for preset in PRESETS.values()]
    if as_json:
        show_json(rows)
        return
    shown = [
        {
            **row,
            "task": row["task"]["kind"],
            "columns": ", ".join(row["columns"]),
            "metrics": ", ".join(row["metrics"]) or "loss",
        }
        for row in rows
    ]
    show_rows(shown, ["name", "task", "files", "metrics", "columns", "summary"], as_json=False)


def _refuse_other_columns(preset: Preset, dataset: Dataset) -> None:
    missing = [column for column in preset.columns if column not in dataset.column_kinds]
    if missing:
        raise DataError(
            f"{dataset.path}: the preset {preset.name!r} reads {known_names(preset.columns)}, the file has "
            f"{known_names(dataset.column_kinds)}; map the others (--columns {missing[0]}=...), or add it "
            "without a preset"
        )


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
        "layout": dataset.layout.value,
        "preset": dataset.preset,
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
