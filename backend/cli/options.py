"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
EPILOG_REMOTE = (
    "Speaks to the API: set TRUNKLINE_TOKEN, and TRUNKLINE_URL unless it is http://127.0.0.1:8470."
)


def group(name: str, text: str) -> typer.Typer:
    """Return a group of commands that shows its help when called alone."""
    return typer.Typer(name=name, help=text, no_args_is_help=True)
