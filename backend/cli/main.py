"""The tree of commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from backend.cli import (
    COMPARE,
    DEMO,
    WORKER,
    audit,
    become_compare,
    become_demo,
    become_worker,
    jobs,
    models,
    notices,
    operator,
    parties,
    root,
    rotation,
    second_factor,
    up,
    users,
)
from backend.cli.output import errors_as_exit_codes
from backend.db.models import PartyKind
from splitlearn.option_errors import TellingGroup

app = typer.Typer(
    name="trunkline",
    cls=TellingGroup,
    help="Organisations that may not share their data fine-tune one large language model together.",
    epilog="Completion by the Tab key in bash, zsh or fish: trunkline --install-completion. "
    "Exit codes: docs/exit-codes.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(operator.db)
app.add_typer(operator.organizations)
app.add_typer(audit.app)
root.app.command("rotate-signer", epilog="Example: trunkline root rotate-signer")(rotation.rotate_signer)
root.app.command("pending", epilog="Example: trunkline root pending --json > list.json")(rotation.pending)
app.add_typer(root.app)
app.add_typer(users.users)
app.add_typer(users.tokens)
app.add_typer(second_factor.app)
app.add_typer(notices.app)
app.add_typer(models.app)
app.add_typer(jobs.app)
for _kind in PartyKind:
    app.add_typer(parties.make_group(_kind))
app.command("api", epilog="Example: TRUNKLINE_PORT=8471 trunkline api")(operator.api)
app.command("gateway", epilog=operator.GATEWAY_EPILOG)(operator.gateway)
app.command("up", epilog=up.EPILOG)(up.up)


@app.command(
    COMPARE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def compare(context: typer.Context) -> None:
    """Train one job in every way, side by side, on files of your own; see trunkline compare --help."""
    become_compare([COMPARE, *context.args])


@app.command(
    DEMO,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Three silos fine-tune one model together on this machine; see trunkline demo --help."""
    become_demo([DEMO, *context.args])


@app.command(
    WORKER,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def worker(context: typer.Context) -> None:
    """Host trunks on one device of this machine; see trunkline worker --help."""
    become_worker(context.args)


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
