"""The first start, and every later one: nothing is served before this has passed."""

from dataclasses import dataclass, field

from backend.app_prefix import API_PREFIX
from backend.artifacts.store import ArtifactStore
from backend.audit.ledger import ensure_head
from backend.audit.service import OPERATOR
from backend.auth.passwords import Passwords, generate_password
from backend.clock import Clock
from backend.db import Database, check_schema
from backend.db.clock import shared_clock
from backend.db.turn import alone
from backend.federation.authority import open_authority
from backend.federation.service import find_federation, pin_root
from backend.federation.signer import ensure_keys
from backend.log import configure_logging
from backend.openid.provider import OPENID_CALLBACK, open_provider
from backend.organizations.service import FIRST_NAME, create_organization
from backend.server import Server
from backend.settings import Settings
from backend.users.repository import count_users
from backend.users.service import NewUser

FIRST_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The first user, told once to whoever started the server."""

    name: str
    password: str = field(repr=False)


def start(settings: Settings, *, clock: Clock | None = None) -> tuple[Server, FirstAdmin | None]:
    """Open the database and the root; at the first start, make both parties to trust: root and admin.

    Args:
        settings: Of the control plane.
        clock: The server's; None for the one that all processes on the database share.

    Returns:
        The server's world, and the first admin if it was made just now.

    Raises:
        SchemaVersionError: The database is behind or ahead of this code.
        StorageError, IdentityError: The database or the root cannot be used.
    """
    configure_logging(settings.log_format)
    database = Database(settings.resolved_database_url)
    try:
        check_schema(database)
        # Two that start at once on an empty database would each make a root, and a first admin.
        with alone(database, "start", folder=settings.state_dir):
            return _start(settings, database, clock or shared_clock(database))
    except BaseException:
        database.dispose()
        raise


def _start(settings: Settings, database: Database, clock: Clock) -> tuple[Server, FirstAdmin | None]:
    with database.read() as session:
        first = find_federation(session) is None
    authority = open_authority(settings, may_create=first)
    passwords = Passwords(
        memory_kib=settings.password_memory_kib,
        passes=settings.password_passes,
        lanes=settings.password_lanes,
        concurrency=settings.password_concurrency,
    )
    store = ArtifactStore(settings.resolved_artifacts_url)
    openid = open_provider(settings, redirect_uri=f"{settings.audience}{API_PREFIX}{OPENID_CALLBACK}")
    server = Server(settings, database, authority, passwords, clock, store=store, openid=openid)
    database.on_commit(server.bus.notify)
    with database.write() as session:
        pin_root(session, authority, now=clock())
        ensure_keys(session, authority, days=settings.certificate_days, now=clock())
        ensure_head(session, now=clock())
    return server, _first_admin(server)


def _first_admin(server: Server) -> FirstAdmin | None:
    with server.database.read() as session:
        if count_users(session):
            return None
    admin = FirstAdmin(FIRST_ADMIN, generate_password())
    new = NewUser(admin.name, server.passwords.hash(admin.password))
    with server.database.write() as session:
        create_organization(session, name=FIRST_NAME, admin=new, actor=OPERATOR, now=server.now())
    return admin
