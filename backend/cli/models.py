"""``trunkline models``: what jobs can be run on."""

import time
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from backend.cli.options import EPILOG_REMOTE, AsJson, group
from backend.cli.output import CommandError, show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.organizations.service import FIRST_NAME

app = group(
    "models",
    f"Register, list and remove models. {EPILOG_REMOTE}",
    example="trunkline models add tiny folder:/srv/models/tiny --wait",
)

ModelName = Annotated[str, typer.Argument(help="The model's name.")]
Project = Annotated[str, typer.Option(help="The project that it belongs to.")]
_LOOK_SECONDS = 0.2
_COLUMNS = ["name", "state", "family", "num_layers", "num_bytes", "source"]


@app.command("add", epilog="Example: trunkline models add smol hub:HuggingFaceTB/SmolLM2-135M --wait")
def add(
    name: ModelName,
    source: Annotated[
        str,
        typer.Argument(
            help="hub:OWNER/NAME or hub:OWNER/NAME@REVISION; or folder:PATH, where the server allows it."
        ),
    ],
    *,
    project: Project = FIRST_NAME,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when it is ready or has failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register a model: the server cuts it into files by layer, of which each party fetches its own."""
    remote = Remote(ClientSettings())
    model = remote.call("POST", "/models", {"name": name, "source": source, "project": project})
    show(_settled(remote, name, project) if wait else model, as_json=as_json)


@app.command("list", epilog="Example: trunkline models list --json")
def list_all(*, project: Project = FIRST_NAME, as_json: AsJson = False) -> None:
    """List the models with their state."""
    show_rows(
        list(Remote(ClientSettings()).rows(f"/models?{urlencode({'project': project})}")),
        _COLUMNS,
        as_json=as_json,
    )


@app.command("show", epilog="Example: trunkline models show smol")
def show_one(name: ModelName, *, project: Project = FIRST_NAME, as_json: AsJson = False) -> None:
    """Show one model; digest is what NAME@sha256:DIGEST in a job pins."""
    show(Remote(ClientSettings()).call("GET", _path(name, project)), as_json=as_json)


@app.command("remove", epilog="Example: trunkline models remove smol")
def remove(name: ModelName, *, project: Project = FIRST_NAME, as_json: AsJson = False) -> None:
    """Remove a model that no job needs any more."""
    Remote(ClientSettings()).call("DELETE", _path(name, project))
    show({"removed": name}, as_json=as_json)


def _path(name: str, project: str) -> str:
    return f"{path('models', name)}?{urlencode({'project': project})}"


def _settled(remote: Remote, name: str, project: str) -> dict[str, Any]:
    """Return a model once it is ready.

    Raises:
        CommandError: Its registration failed.
    """
    while True:
        model: dict[str, Any] = remote.call("GET", _path(name, project))
        if model["state"] == "failed":
            raise CommandError(
                f"the model {name!r} was not registered: {model['state_reason']}",
                remedy="correct it and add the model again under the same name",
            )
        if model["state"] == "ready":
            return model
        time.sleep(_LOOK_SECONDS)
