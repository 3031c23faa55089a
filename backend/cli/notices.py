"""``trunkline notices``: where people are told by e-mail and webhook."""

import time
from typing import Annotated

import typer

from backend.cli.options import EPILOG_REMOTE, AsJson, group
from backend.cli.output import CommandError, show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.db.models import ChannelKind
from backend.notices.outbox import CHOSEN

app = group(
    "notices",
    f"Tell people by e-mail and webhook. {EPILOG_REMOTE}",
    example="trunkline notices add rosa email rosa@clinic.example --topic job_failed",
)
_ROUTE = "/notice-channels"
_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
Name = Annotated[str, typer.Argument(help="The channel's name.")]


@app.command("add", epilog="Example: trunkline notices add ops webhook https://hooks.example/trunkline")
def add(
    name: Name,
    kind: ChannelKind,
    target: Annotated[str, typer.Argument(help="An e-mail address, or an https URL.")],
    *,
    topic: Annotated[
        list[str] | None,
        typer.Option(help=f"What it is told of: {', '.join(CHOSEN)}; may be given again. Default: all"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have notices sent somewhere; a webhook's secret, which signs them, is shown this once."""
    body = {"name": name, "kind": kind.value, "target": target, "topics": topic}
    show(Remote(ClientSettings()).call("POST", _ROUTE, body), as_json=as_json)


@app.command("list", epilog="Example: trunkline notices list --json")
def list_channels(*, as_json: AsJson = False) -> None:
    """List the channels."""
    rows = list(Remote(ClientSettings()).rows(_ROUTE))
    show_rows(rows, ["name", "kind", "target", "topics", "created_by"], as_json=as_json)


@app.command("remove", epilog="Example: trunkline notices remove ops")
def remove(name: Name, *, as_json: AsJson = False) -> None:
    """Remove a channel, and what was to go there."""
    Remote(ClientSettings()).call("DELETE", _ROUTE + path(name))
    show({"removed": name}, as_json=as_json)


@app.command("test", epilog="Example: trunkline notices test ops")
def try_channel(name: Name, *, as_json: AsJson = False) -> None:
    """Send a test, and wait until it has arrived or failed once."""
    remote = Remote(ClientSettings())
    asked = remote.call("POST", f"{_ROUTE}{path(name)}/test")
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        sent = {row["id"]: row for row in remote.rows(f"{_ROUTE}{path(name)}/notices")}
        notice = sent.get(asked["id"])
        if notice is not None and notice["attempts"]:
            if notice["delivered_at"] is None:
                raise CommandError(
                    f"it did not arrive: {notice['error']}", remedy="it is tried again for three days"
                )
            show(notice, as_json=as_json, text=f"arrived at {notice['delivered_at']}")
            return
        time.sleep(_PAUSE_SECONDS)
    raise CommandError(
        f"nothing was tried for {_PATIENCE_SECONDS:.0f} s",
        remedy="see: trunkline notices sent, and the server's log",
    )


@app.command("sent", epilog="Example: trunkline notices sent ops")
def sent(name: Name, *, as_json: AsJson = False) -> None:
    """List what a channel was told in the last 30 days, and whether it arrived."""
    rows = list(Remote(ClientSettings()).rows(f"{_ROUTE}{path(name)}/notices"))
    show_rows(
        rows,
        ["created_at", "topic", "subject", "attempts", "delivered_at", "due_at", "error"],
        as_json=as_json,
    )
