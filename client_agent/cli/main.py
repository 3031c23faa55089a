"""The tree of commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from client_agent.cli import data, generating, identity, jobs, running
from client_agent.cli.output import PROGRAM, errors_as_exit_codes
from splitlearn.option_errors import TellingGroup

app = typer.Typer(
    name=PROGRAM,
    cls=TellingGroup,
    help="Train a large language model together with others, while this organisation's data stays here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("enroll", epilog=identity.ENROLL_EPILOG)(identity.enroll)
app.command("rotate-key", epilog="Example: trunkline-agent rotate-key")(identity.rotate)
app.add_typer(data.app)
app.command("run", epilog=running.EPILOG)(running.run)
app.command("status", epilog="Example: trunkline-agent status --json")(identity.status)
app.command("logs", epilog="Example: trunkline-agent logs 0f3c -f")(jobs.logs)
app.command("export", epilog="Example: trunkline-agent export 0f3c ~/models/reviews")(jobs.export)
app.command("generate", epilog=generating.EPILOG)(generating.generate)
app.command("forget", epilog="Example: trunkline-agent forget 0f3c")(jobs.forget)


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if is_asked:
        typer.echo(f"{PROGRAM} {version('trunkline-agent')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Hold the commands."""


def run() -> None:
    """Run the command that was typed."""
    with errors_as_exit_codes():
        app()
