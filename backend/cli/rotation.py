"""``trunkline root rotate-signer`` and ``root pending``: what of the root's business the server knows."""

import typer

from backend.cli.options import AsJson
from backend.cli.output import show, show_rows
from backend.cli.remote import ClientSettings, Remote


def rotate_signer(*, as_json: AsJson = False) -> None:
    """Give the server a new key for job specifications; speaks to the API.

    With an offline root the old key goes on signing, and what is printed with --json is what the root signs.
    """
    answer = Remote(ClientSettings()).call("POST", "/federation/spec-signer/rotation")
    waits = answer["certificate"] is None
    text = (
        "the new key waits for the root: give what --json prints to trunkline root sign"
        if waits
        else "the new key signs from now on"
    )
    show(answer, as_json=as_json, text=text)


def pending(*, as_json: AsJson = False) -> None:
    """Show the revocations that the offline root has still to sign; speaks to the API.

    The output of --json is also the file that trunkline root revoke --previous reads.
    """
    answer = Remote(ClientSettings()).call("GET", "/federation/revocations")
    if as_json:
        show(answer, as_json=True)
        return
    show_rows(answer["pending"], ["serial", "kind", "name", "since"], as_json=False)
    if answer["pending"]:
        serials = " ".join(row["serial"] for row in answer["pending"])
        typer.echo(f"where the root is: trunkline root revoke {serials} --previous FILE", err=True)
