"""Commands on the server itself: they open the database by the server's own settings.

The web framework takes a second to load: only the commands that need it do so.
"""

import gc
import os
import signal
import socket
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from backend.app_prefix import API_PREFIX
from backend.cli.options import AsJson, group
from backend.cli.output import CommandError, show
from backend.cli.remote import ClientSettings, Remote
from backend.db import Database, check_schema, upgrade
from backend.db.schema import current_revision
from backend.settings import Settings
from splitlearn.errors import ProcessError, StorageError
from splitlearn.identity import is_name
from splitlearn.processes import refuse_used_port

if TYPE_CHECKING:
    from backend.bootstrap import FirstAdmin
    from backend.server import Server

_STOP_SECONDS = 5  # for answers under way; streams end at once
_COLLECT_AFTER = 50_000, 20, 50  # a request leaves some thousand objects behind, few of them in cycles
_MAX_FILES = 65_536  # every agent holds a connection or two; a service's usual limit is 1,024
GATEWAY_EPILOG = (
    "Example: TRUNKLINE_GATEWAY_STANDINGS_TOKEN=... trunkline gateway --control-plane http://127.0.0.1:8470"
)
db = group("db", "The database's schema.", example="trunkline db upgrade")
organizations = group(
    "organizations",
    "Organisations on this server.",
    example="trunkline organizations add clinic --admin anna",
)


@db.command("upgrade", epilog="Example: trunkline db upgrade")
def db_upgrade(*, as_json: AsJson = False) -> None:
    """Bring the database to this version's tables; makes a SQLite file if there is none."""
    database = _database(Settings())
    before = current_revision(database)
    upgrade(database)
    after = current_revision(database)
    show({"before": before, "after": after}, as_json=as_json)


@db.command("check", epilog="Example: trunkline db check")
def db_check(*, as_json: AsJson = False) -> None:
    """Tell whether this version can work on the database; changes nothing."""
    database = Database(Settings().resolved_database_url)  # whose folder, too, a check does not make
    check_schema(database)
    show({"revision": current_revision(database)}, as_json=as_json)


@organizations.command("add", epilog="Example: trunkline organizations add clinic --admin anna")
def add_organization(
    name: Annotated[str, typer.Argument(help="The organisation's name.")],
    *,
    admin: Annotated[str, typer.Option(help="Name of its first admin.")],
    as_json: AsJson = False,
) -> None:
    """Make an organisation with a project and an admin, whose password is shown this once."""
    from backend.audit.service import OPERATOR  # noqa: PLC0415 - see the module's docstring
    from backend.auth.passwords import generate_password  # noqa: PLC0415
    from backend.bootstrap import start  # noqa: PLC0415
    from backend.organizations.service import create_organization  # noqa: PLC0415
    from backend.users.service import NewUser  # noqa: PLC0415

    if not (is_name(name) and is_name(admin)):
        raise CommandError("a name is 1 to 64 of a-z 0-9 . _ -", exit_code=2)
    server, first = start(Settings())
    _announce(first)
    password = generate_password()
    new = NewUser(admin, server.passwords.hash(password))
    with server.database.write() as session:
        create_organization(session, name=name, admin=new, actor=OPERATOR, now=server.now())
    show({"organization": name, "admin": admin, "password": password}, as_json=as_json)


def api() -> None:
    """Start the control plane's API; Ctrl-C stops it. Settings: TRUNKLINE_..., see docs/control-plane.md."""
    import uvicorn  # noqa: PLC0415 - see the module's docstring

    from backend.app import create_app  # noqa: PLC0415
    from backend.background import background  # noqa: PLC0415
    from backend.bootstrap import start  # noqa: PLC0415
    from backend.gateway.process import allow_files  # noqa: PLC0415

    settings = Settings()
    refuse_used_port(settings.host, settings.port, flag="TRUNKLINE_PORT")
    allow_files(_MAX_FILES)
    server, first = start(settings)
    _announce(first)
    _say_where(server)
    config = uvicorn.Config(
        create_app(server, lifespan=background),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )

    class _Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            server.bus.close()  # uvicorn waits for open answers, and a stream of events has no end of its own
            await super().shutdown(sockets)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _ignore)  # uvicorn raises them again after an orderly end, which is no failure
    _rest_the_collector()
    running = _Server(config)
    running.run()
    if not running.started:
        raise ProcessError("the API did not start; what went wrong stands above")


def _rest_the_collector() -> None:
    """Have the garbage collector look at what requests leave, and never again at what was loaded before.

    With Python's own settings it took a quarter of the API's time (``bench.fleet``).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    pass


def gateway(
    *,
    control_plane: Annotated[
        str | None,
        typer.Option(help="The control plane's address; its key for tickets is asked there at the start."),
    ] = None,
) -> None:
    """Start the gateway; Ctrl-C stops it. Settings: TRUNKLINE_GATEWAY_..., see docs/gateway.md."""
    from backend.gateway import main  # noqa: PLC0415 - see the module's docstring

    if control_plane is not None:
        url = control_plane.rstrip("/")
        answer = Remote(ClientSettings(url=url)).call("GET", "/federation")
        for name, value in (
            ("TICKET_PUBLIC_KEY", answer["ticket_public_key"]),
            ("STANDINGS_URL", f"{url}{API_PREFIX}/standings"),
        ):
            os.environ.setdefault(f"TRUNKLINE_GATEWAY_{name}", value)  # noqa: TID251 - the entry point
    raise typer.Exit(main())


def _database(settings: Settings) -> Database:
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"the folder {settings.state_dir} cannot be made: {error.strerror}; correct TRUNKLINE_STATE_DIR"
        ) from error
    return Database(settings.resolved_database_url)


def _announce(first: "FirstAdmin | None") -> None:
    if first is not None:
        typer.echo(f"first start: user {first.name}, password {first.password}", err=True)
        typer.echo("  This password is shown only now. Change it by: POST /api/v1/me/password", err=True)


def _say_where(server: "Server") -> None:
    settings, authority = server.settings, server.authority
    typer.echo(f"control plane: {settings.audience} (documentation at /docs)", err=True)
    typer.echo(f"federation root: {authority.fingerprint}", err=True)
    if authority.embedded:
        from backend.federation.authority import EMBEDDED_MEANS  # noqa: PLC0415 - see the docstring

        typer.echo(f"  {settings.resolved_root_file}: {EMBEDDED_MEANS}", err=True)
