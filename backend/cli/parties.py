"""``trunkline silos`` and ``trunkline workers``: the same commands for both."""

from typing import Annotated, Any

import typer

from backend.cli.options import EPILOG_REMOTE, AsJson, group, is_id
from backend.cli.output import show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.db.models import PartyKind
from backend.settings import MAX_INVITATION_HOURS

_ROTATE = {"silos": "trunkline-agent rotate-key", "workers": "trunkline worker --rotate-key"}
_GIB = 1 << 30
Name = Annotated[str, typer.Argument(help="Its name, unique in the federation.")]


def make_group(kind: PartyKind) -> typer.Typer:
    """Return the commands of one kind of party."""
    word = f"{kind.value}s"
    app = group(
        word, f"Invite, list and revoke {word}. {EPILOG_REMOTE}", example=f"trunkline {word} invite north"
    )
    _add_invite(app, word)
    _add_invitations(app, word)
    _add_list(app, word)
    _add_revoke(app, word)
    if kind is PartyKind.WORKER:
        _add_drain(app)
    return app


def _add_invite(app: typer.Typer, word: str) -> None:
    @app.command("invite", epilog=f"Example: trunkline {word} invite north --hours 24")
    def invite(
        name: Name,
        *,
        hours: Annotated[int | None, typer.Option(min=1, max=MAX_INVITATION_HOURS, help="Validity.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Make an invitation, shown this once: send it safely, and tell the fingerprint another way."""
        body = {"name": name, "valid_hours": hours}
        show(Remote(ClientSettings()).call("POST", f"/{word}/invitations", body), as_json=as_json)


def _add_invitations(app: typer.Typer, word: str) -> None:
    @app.command("invitations", epilog=f"Example: trunkline {word} invitations --json")
    def invitations(*, as_json: AsJson = False) -> None:
        """List the invitations that may still be used, oldest first."""
        rows = list(Remote(ClientSettings()).rows(f"/{word}/invitations"))
        show_rows(rows, ["id", "name", "created_by", "created_at", "expires_at"], as_json=as_json)

    @app.command("withdraw", epilog=f"Example: trunkline {word} withdraw 6d4b...")
    def withdraw(
        invitation_id: Annotated[
            str, typer.Argument(help="Its id, from the list of invitations.", callback=is_id)
        ],
        *,
        as_json: AsJson = False,
    ) -> None:
        """Take back an invitation that was not used yet."""
        Remote(ClientSettings()).call("DELETE", path(word, "invitations", invitation_id))
        show({"withdrawn": invitation_id}, as_json=as_json)


def _add_list(app: typer.Typer, word: str) -> None:
    @app.command("list", epilog=f"Example: trunkline {word} list --json")
    def list_all(*, as_json: AsJson = False) -> None:
        """List them with their state."""
        rows = list(Remote(ClientSettings()).rows(f"/{word}"))
        columns = ["name", "status", "revocation", "certificate_until", "epoch", "last_seen_at", "serial"]
        if word == "workers":
            columns += ["drained_at", "devices"]
        show_rows(rows if as_json else [_plain(row) for row in rows], columns, as_json=as_json)
        ending = [row["name"] for row in rows if row["certificate_ends_soon"]]
        if ending:
            typer.echo(
                f"less than 30 days left: {', '.join(ending)}; each rotates its own key: {_ROTATE[word]}",
                err=True,
            )

    @app.command("show", epilog=f"Example: trunkline {word} show north")
    def show_one(name: Name, *, as_json: AsJson = False) -> None:
        """Show one of them."""
        row = Remote(ClientSettings()).call("GET", path(word, name))
        show(row if as_json else _plain(row), as_json=as_json)

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


def _add_drain(app: typer.Typer) -> None:
    @app.command("drain", epilog="Example: trunkline workers drain gpu-1")
    def drain(name: Name, *, as_json: AsJson = False) -> None:
        """Let a worker end its round and take no other; its job goes on at another worker."""
        _say_drained(name, "drain", as_json=as_json)

    @app.command("undrain", epilog="Example: trunkline workers undrain gpu-1")
    def undrain(name: Name, *, as_json: AsJson = False) -> None:
        """Let a drained worker take rounds again."""
        _say_drained(name, "undrain", as_json=as_json)


def _say_drained(name: str, word: str, *, as_json: bool) -> None:
    found = Remote(ClientSettings()).call("POST", path("workers", name, word))
    since = found["drained_at"]
    text = f"{name} takes rounds" if since is None else f"{name} takes no other round, since {since[:19]}"
    show(found, as_json=as_json, text=text)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for people: each device with its name and memory."""
    devices = "; ".join(
        f"{device['id'] or device['kind']}: {device['name']}, {device['free_memory_bytes'] / _GIB:.1f} of "
        f"{device['total_memory_bytes'] / _GIB:.1f} GiB free"
        for device in row.get("devices", ())
    )
    return {**row, "devices": devices}
