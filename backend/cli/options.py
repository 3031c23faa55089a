"""Options that several commands share."""

from typing import Annotated
from uuid import UUID

import typer

from backend.cli.output import USAGE_EXIT_CODE, CommandError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
EPILOG_REMOTE = (
    "Speaks to the API: set TRUNKLINE_TOKEN, and TRUNKLINE_URL unless it is http://127.0.0.1:8470."
)


def group(name: str, text: str, *, example: str) -> typer.Typer:
    """Return a group of commands that shows its help when called alone.

    Args:
        name: What is typed.
        text: What it is for.
        example: Whole command line of the command that people want first.
    """
    return typer.Typer(name=name, help=text, epilog=f"Example: {example}", no_args_is_help=True)


def is_id(text: str) -> str:
    """Return what was typed as an id.

    Raises:
        CommandError: It is none, whole.
    """
    if not is_whole_id(text):
        raise CommandError(
            f"{text[:80]!r} is no id: 36 characters, as 01234567-89ab-cdef-0123-456789abcdef",
            remedy="copy it whole: trunkline jobs list, jobs generations, tokens list, silos invitations",
            exit_code=USAGE_EXIT_CODE,
        )
    return text


def is_whole_id(text: str) -> bool:
    """Whether it is an id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
