"""The tree of commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from backend.cli import DEMO, become_demo, operator, parties, root, users
from backend.cli.output import errors_as_exit_codes
from backend.db.models import PartyKind

app = typer.Typer(
    name="trunkline",
    help="Organisations that may not share their data fine-tune one large language model together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(operator.db)
app.add_typer(operator.organizations)
app.add_typer(root.app)
app.add_typer(users.users)
app.add_typer(users.tokens)
for _kind in PartyKind:
    app.add_typer(parties.make_group(_kind))
app.command("api", epilog="Example: TRUNKLINE_PORT=8471 trunkline api")(operator.api)


@app.command(
    DEMO,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Three silos fine-tune one model together on this machine; see trunkline demo --help."""
    become_demo([DEMO, *context.args])


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if is_asked:
        typer.echo(f"trunkline {version('trunkline')}")
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
