"""``trunkline silos`` and ``trunkline workers``: the same commands for both."""

from typing import Annotated

import typer

from backend.cli.options import EPILOG_REMOTE, AsJson, group
from backend.cli.output import show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.db.models import PartyKind

Name = Annotated[str, typer.Argument(help="Its name, unique in the federation.")]


def make_group(kind: PartyKind) -> typer.Typer:
    """Return the commands of one kind of party."""
    word = f"{kind.value}s"
    app = group(word, f"Invite, list and revoke {word}. {EPILOG_REMOTE}")
    _add_invite(app, word)
    _add_list(app, word)
    _add_revoke(app, word)
    return app


def _add_invite(app: typer.Typer, word: str) -> None:
    @app.command("invite", epilog=f"Example: trunkline {word} invite north --hours 24")
    def invite(
        name: Name,
        *,
        hours: Annotated[int | None, typer.Option(min=1, help="Validity.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Make an invitation, shown this once: send it safely, and tell the fingerprint another way."""
        body = {"name": name, "valid_hours": hours}
        show(Remote(ClientSettings()).call("POST", f"/{word}/invitations", body), as_json=as_json)


def _add_list(app: typer.Typer, word: str) -> None:
    @app.command("list", epilog=f"Example: trunkline {word} list --json")
    def list_all(*, as_json: AsJson = False) -> None:
        """List them with their state."""
        rows = list(Remote(ClientSettings()).rows(f"/{word}"))
        columns = ["name", "status", "epoch", "last_seen_at", "serial"]
        show_rows(rows, columns, as_json=as_json)

    @app.command("request", epilog=f"Example: trunkline {word} request north > north.json")
    def show_request(name: Name) -> None:
        """Print the request that an offline root signs."""
        answer = Remote(ClientSettings()).call("GET", path(word, name, "certificate-request"))
        show(answer, as_json=True)


def _add_revoke(app: typer.Typer, word: str) -> None:
    @app.command("revoke", epilog=f"Example: trunkline {word} revoke north")
    def revoke(name: Name, *, as_json: AsJson = False) -> None:
        """Revoke one at once: its sessions end, and it cannot log in again."""
        show(Remote(ClientSettings()).call("POST", path(word, name, "revoke")), as_json=as_json)
