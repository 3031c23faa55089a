"""``trunkline second-factor``: one's own, and of whom the organisation demands one."""

from typing import Annotated

import segno
import typer

from backend.cli.options import EPILOG_REMOTE, AsJson, group
from backend.cli.output import show
from backend.cli.remote import ClientSettings, Remote
from backend.cli.users import ask_for
from backend.db.models import FactorRule

app = group(
    "second-factor",
    f"Your second factor: codes by the clock. {EPILOG_REMOTE}",
    example="trunkline second-factor add",
)
_ROUTE = "/me/second-factor"


@app.command("add", epilog="Example: trunkline second-factor add")
def add(
    *,
    picture: Annotated[bool, typer.Option(help="Draw what a telephone's camera reads.")] = True,
    as_json: AsJson = False,
) -> None:
    """Get one: the secret is shown this once, and a first code switches it on.

    Asks for your password, and then for a code. The recovery codes that follow are shown this once, too.
    """
    remote = Remote(ClientSettings())
    begun = remote.call("POST", _ROUTE, {"password": ask_for("Password", hidden=True)})
    typer.echo(f"secret: {begun['secret']}\n{begun['uri']}", err=True)
    if picture:
        _draw(begun["uri"])
    answer = remote.call("POST", f"{_ROUTE}/confirm", {"code": ask_for("Code", hidden=False)})
    _show_codes(answer["recovery_codes"], as_json=as_json)


@app.command("recovery-codes", epilog="Example: trunkline second-factor recovery-codes")
def recovery_codes(*, as_json: AsJson = False) -> None:
    """Get new recovery codes; the old ones are worth nothing any more."""
    body = {"code": ask_for("Code", hidden=False)}
    answer = Remote(ClientSettings()).call("POST", f"{_ROUTE}/recovery-codes", body)
    _show_codes(answer["recovery_codes"], as_json=as_json)


@app.command("remove", epilog="Example: trunkline second-factor remove")
def remove(*, as_json: AsJson = False) -> None:
    """Take yours away, by a last code."""
    Remote(ClientSettings()).call("POST", f"{_ROUTE}/remove", {"code": ask_for("Code", hidden=False)})
    show({"second_factor": "off"}, as_json=as_json)


@app.command("demand", epilog="Example: trunkline second-factor demand admins")
def demand(of: FactorRule, *, as_json: AsJson = False) -> None:
    """Demand one of your organisation's admins, or of everybody; for admins who have one themselves."""
    show(
        Remote(ClientSettings()).call("PATCH", "/organization", {"second_factor": of.value}), as_json=as_json
    )


def _show_codes(codes: list[str], *, as_json: bool) -> None:
    show({"recovery_codes": codes}, as_json=as_json, text="\n".join(codes))


def _draw(uri: str) -> None:
    """Draw on standard error: the secret has no place in a file that the codes are written to."""
    for row in segno.make(uri, error="l", micro=False).matrix_iter(border=2):
        typer.echo("".join("  " if dark else "\N{FULL BLOCK}" * 2 for dark in row), err=True)
