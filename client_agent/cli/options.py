"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

STATE_DIR_VARIABLE = "TRUNKLINE_AGENT_STATE_DIR"
DEFAULT_STATE_DIR = Path("~/.trunkline-agent")

StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        envvar=STATE_DIR_VARIABLE,
        help="Folder of identity, data sets, checkpoints, results and logs.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def resolved(state_dir: Path) -> Path:
    """Return the state folder as an absolute path."""
    return state_dir.expanduser().absolute()
