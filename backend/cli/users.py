"""``trunkline users`` and ``trunkline tokens``."""

import sys
from typing import Annotated

import typer

from backend.auth.permissions import Permission
from backend.cli.options import EPILOG_REMOTE, AsJson, group, is_id
from backend.cli.output import USAGE_EXIT_CODE, CommandError, show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.db.models import Role
from backend.settings import MAX_TOKEN_DAYS

users = group(
    "users",
    f"Your organisation's users. {EPILOG_REMOTE}",
    example="trunkline users add rosa --role researcher",
)
tokens = group("tokens", f"Your API tokens. {EPILOG_REMOTE}", example="trunkline tokens sign-in rosa")

UserName = Annotated[str, typer.Argument(help="The user's name.")]


@users.command("list", epilog="Example: trunkline users list --json")
def list_users(*, as_json: AsJson = False) -> None:
    """List the users."""
    rows = list(Remote(ClientSettings()).rows("/users"))
    show_rows(rows, ["name", "role", "email", "created_at", "disabled_at"], as_json=as_json)


@users.command("add", epilog="Example: trunkline users add rosa --role researcher")
def add_user(
    name: UserName,
    *,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.RESEARCHER,
    email: Annotated[str | None, typer.Option(help="What an OpenID provider knows the person by.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a user; the password is shown this once."""
    body = {"name": name, "role": role.value, "email": email}
    show(Remote(ClientSettings()).call("POST", "/users", body), as_json=as_json)


@users.command("set-role", epilog="Example: trunkline users set-role rosa auditor")
def set_role(
    name: UserName,
    role: Role,
    *,
    project: Annotated[
        str | None, typer.Option(help="In this project alone, instead of the organisation's role.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what a user may do."""
    if project is not None:
        route = path("projects", project, "members", name)
        show(Remote(ClientSettings()).call("PUT", route, {"role": role.value}), as_json=as_json)
        return
    show(Remote(ClientSettings()).call("PATCH", path("users", name), {"role": role.value}), as_json=as_json)


@users.command("set-email", epilog="Example: trunkline users set-email rosa rosa@clinic.example")
def set_email(
    name: UserName,
    email: Annotated[str, typer.Argument(help="The address, as the OpenID provider has it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what an OpenID provider knows a user by; an earlier link to somebody there ends."""
    show(Remote(ClientSettings()).call("PATCH", path("users", name), {"email": email}), as_json=as_json)


@users.command("disable", epilog="Example: trunkline users disable rosa")
def disable(name: UserName, *, as_json: AsJson = False) -> None:
    """Shut a user out: sign-ins and tokens end at once."""
    show(Remote(ClientSettings()).call("PATCH", path("users", name), {"disabled": True}), as_json=as_json)


@users.command("enable", epilog="Example: trunkline users enable rosa")
def enable(name: UserName, *, as_json: AsJson = False) -> None:
    """Let a user in again."""
    show(Remote(ClientSettings()).call("PATCH", path("users", name), {"disabled": False}), as_json=as_json)


@users.command("reset-password", epilog="Example: trunkline users reset-password rosa")
def reset_password(name: UserName, *, as_json: AsJson = False) -> None:
    """Give a user a new password, shown this once."""
    show(Remote(ClientSettings()).call("POST", path("users", name, "password")), as_json=as_json)


@users.command("reset-second-factor", epilog="Example: trunkline users reset-second-factor rosa")
def reset_second_factor(name: UserName, *, as_json: AsJson = False) -> None:
    """Take away the second factor of a user who lost it; sign-ins and tokens end at once."""
    Remote(ClientSettings()).call("DELETE", path("users", name, "second-factor"))
    show({"reset": name}, as_json=as_json)


@tokens.command("sign-in", epilog="Example: export TRUNKLINE_TOKEN=$(trunkline tokens sign-in admin)")
def sign_in(
    name: UserName,
    *,
    organization: Annotated[str | None, typer.Option(help="Needed by who belongs to several.")] = None,
    with_code: Annotated[
        bool, typer.Option("--code", help="Ask for the code of a second factor, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Exchange a password, which is asked for, for a token, which is printed alone."""
    password = ask_for("Password", hidden=True)
    code = ask_for("Code", hidden=False) if with_code else None
    body = {"name": name, "password": password, "organization": organization, "code": code}
    answer = Remote(ClientSettings()).call("POST", "/sign-in", body)
    show(answer, as_json=as_json, text=answer["token"])


def ask_for(what: str, *, hidden: bool) -> str:
    """Return what is typed on being asked; the question goes to standard error.

    Raises:
        CommandError: Nothing was.
    """
    if not sys.stdin.isatty():  # a script answers: there is no echo to turn off
        if not (line := sys.stdin.readline()):
            raise CommandError(f"no {what.lower()} was given", exit_code=USAGE_EXIT_CODE)
        return line.rstrip("\n")
    try:
        typed: str = typer.prompt(what, hide_input=hidden, err=True)
    except typer.Abort as error:
        raise CommandError(f"no {what.lower()} was given", exit_code=USAGE_EXIT_CODE) from error
    return typed


@tokens.command("list", epilog="Example: trunkline tokens list")
def list_tokens(*, as_json: AsJson = False) -> None:
    """List your API tokens."""
    rows = list(Remote(ClientSettings()).rows("/tokens"))
    show_rows(rows, ["id", "name", "role", "scopes", "created_at", "expires_at"], as_json=as_json)


@tokens.command("add", epilog="Example: trunkline tokens add nightly --role researcher --days 30")
def add_token(
    name: Annotated[str, typer.Argument(help="What it is used by.")],
    *,
    role: Annotated[Role | None, typer.Option(help="The most it may do; your role if left out.")] = None,
    scope: Annotated[
        list[Permission] | None, typer.Option(help="What it passes on of its role; may be given again.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=MAX_TOKEN_DAYS, help="Its life.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API token; it is shown this once."""
    scopes = [permission.value for permission in scope] if scope else None
    body = {"name": name, "role": role.value if role else None, "scopes": scopes, "valid_days": days}
    show(Remote(ClientSettings()).call("POST", "/tokens", body), as_json=as_json)


@tokens.command("revoke", epilog="Example: trunkline tokens revoke 6d4b...")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="Its id, from the list.", callback=is_id)],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke an API token at once."""
    Remote(ClientSettings()).call("DELETE", path("tokens", token_id))
    show({"revoked": token_id}, as_json=as_json)
