"""Starts all parts in order, keeps them running, and stops them in order.

The parts are programs of their own and know nothing of this: it prepares what an administrator would
prepare by hand (database, first admin, a worker's invitation) and starts the same commands.
"""

import fcntl
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from backend.app_prefix import API_PREFIX
from backend.audit.service import OPERATOR
from backend.bootstrap import FirstAdmin, start
from backend.db import Database, upgrade
from backend.db.models import PartyKind, PartyStatus
from backend.embedded import programs
from backend.embedded.programs import Places
from backend.embedded.restarts import Restarts
from backend.organizations.repository import find_organization
from backend.organizations.service import FIRST_NAME
from backend.parties import service as parties
from backend.parties.repository import find_party
from backend.server import Server
from backend.settings import Settings
from splitlearn.control_plane.errors import SettingError
from splitlearn.errors import StorageError
from splitlearn.loopback import UNPROXIED
from splitlearn.processes import Child, Program, refuse_used_port

_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_ASK_SECONDS = 2.0
_USAGE_EXIT_CODE = 2  # wrong settings: no later start would get other ones


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What is asked of ``trunkline up``.

    Attributes:
        settings: The control plane's.
        gateway_port: Where the gateway listens.
        workers: Number of workers on this machine.
        worker_arguments: Their flags.
        environment: What all processes inherit.
    """

    settings: Settings
    gateway_port: int
    workers: int
    worker_arguments: tuple[str, ...]
    environment: Mapping[str, str]


class Stack:
    """All processes of one machine; made by :meth:`running`.

    Attributes:
        places: Where everything is.
        first_admin: The first user, if this start made it.
        fingerprint: The federation root's.
    """

    def __init__(self, options: UpOptions, *, say: Callable[[str], None]) -> None:
        settings = options.settings
        self._options, self._say = options, say
        self.places = Places(
            state_dir=settings.state_dir.absolute(),
            host=settings.host,
            port=settings.port,
            gateway_port=options.gateway_port,
            standings_token=secrets.token_urlsafe(32),
        )
        self.first_admin: FirstAdmin | None = None
        self.fingerprint = ""
        self._children: dict[str, Child] = {}
        self._restarts: dict[str, Restarts] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything; stop everything at the end, in reverse order, however it comes.

        Raises:
            StorageError: Another ``trunkline up`` uses the folder, or the disk refused.
            LinkError: A port is in use.
            ProcessError: A part did not come up.
        """
        places = self.places
        with _held(places.state_dir):
            refuse_used_port(places.host, places.port, flag="--port")
            refuse_used_port(places.host, places.gateway_port, flag="--gateway-port")
            invitations = self._prepare()
            try:
                self._start_parts(invitations)
                _write_private(places.description, self.describe())
                yield
            finally:
                places.description.unlink(missing_ok=True)
                self._stop_parts()

    def watch(self, until: threading.Event) -> None:
        """Start again what dies, until the event is set.

        Raises:
            SettingError: A part refuses the settings that it was given.
        """
        while not until.wait(_LOOK_SECONDS):
            for name, child in self._children.items():
                self._look_after(name, child)

    def describe(self) -> dict[str, Any]:
        """Return what programs want to know of what runs here; with a new admin's password."""
        places, admin = self.places, self.first_admin
        return {
            "url": places.url,
            "gateway_url": places.gateway_url,
            "state_dir": str(places.state_dir),
            "logs": str(places.logs),
            "federation_root": self.fingerprint,
            "admin": {"name": admin.name, "password": admin.password} if admin else None,
            "pids": self.pids,
        }

    @property
    def pids(self) -> dict[str, int]:
        """The parts' process ids."""
        return {name: child.pid for name, child in self._children.items()}

    def _prepare(self) -> dict[str, str | None]:
        """Make database, root and admin at the first start; return the invitations that workers need."""
        settings = self._options.settings
        database = Database(settings.resolved_database_url)
        try:
            upgrade(database)
        finally:
            database.dispose()
        server, self.first_admin = start(settings)
        try:
            self.fingerprint = str(server.authority.fingerprint)
            names = [f"worker-{number}" for number in range(1, self._options.workers + 1)]
            return {name: self._invite(server, name) for name in names}
        finally:
            server.database.dispose()

    def _invite(self, server: Server, name: str) -> str | None:
        with server.database.write() as session:
            party = find_party(session, PartyKind.WORKER, name)
            if party is not None and party.status is PartyStatus.ENROLLED:
                return None
            organization = find_organization(session, FIRST_NAME)
            assert organization is not None, "made at the first start"
            scope = parties.Scope(PartyKind.WORKER, organization.id, OPERATOR, server.now())
            _, text = parties.invite(session, server.settings, server.authority, scope, name=name, hours=None)
            return text

    def _start_parts(self, invitations: Mapping[str, str | None]) -> None:
        places, inherited = self.places, self._options.environment
        api = self._start(programs.api(places, inherited))
        api.wait_until(lambda: _answers(f"{places.url}/readyz"), timeout_seconds=_READY_SECONDS)
        gateway = self._start(
            programs.gateway(places, inherited, ticket_public_key=_ticket_public_key(places.url))
        )
        gateway.wait_until(lambda: _answers(places.gateway_health), timeout_seconds=_READY_SECONDS)
        for name, invitation in invitations.items():
            arguments = self._options.worker_arguments
            self._start(
                programs.worker(places, inherited, name=name, invitation=invitation, arguments=arguments)
            )

    def _start(self, program: Program) -> Child:
        child = Child(program, log_folder=self.places.logs)
        self._children[program.name] = child
        child.start()
        self._restarts[program.name] = Restarts(time.monotonic())
        return child

    def kill(self) -> None:
        """End everything at once; what was not saved is lost."""
        for child in self._children.values():
            child.signal(signal.SIGKILL)

    def _stop_parts(self) -> None:
        for child in reversed(self._children.values()):
            child.stop()

    def _look_after(self, name: str, child: Child) -> None:
        restarts, now = self._restarts[name], time.monotonic()
        if child.is_running:
            return
        if child.exit_code == _USAGE_EXIT_CODE:
            raise SettingError(f"{name} cannot be started with these settings: {child.last_words()}")
        if restarts.due_at is None:
            pause = restarts.died(now)
            self._say(
                f"{name} {child.describe_end()}; starting it again in {pause:g} s; its log ends with: "
                f"{child.last_words()}"
            )
        elif restarts.is_due(now):
            child.start()
            restarts.started(now)
            _write_private(self.places.description, self.describe())
            self._say(f"{name} was started again (process {child.pid})")


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
    temporary.replace(path)


def _answers(url: str) -> bool:
    try:
        with httpx2.Client(mounts=UNPROXIED) as client:
            return client.get(url, timeout=_ASK_SECONDS).is_success
    except httpx2.HTTPError:
        return False


def _ticket_public_key(url: str) -> str:
    with httpx2.Client(mounts=UNPROXIED) as client:
        answer = client.get(f"{url}{API_PREFIX}/federation", timeout=_READY_SECONDS)
    answer.raise_for_status()
    key: str = answer.json()["ticket_public_key"]
    return key


@contextmanager
def _held(state_dir: Path) -> Iterator[None]:
    """Hold the folder against another ``trunkline up``."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(
            f"{state_dir} cannot be used: {error.strerror}; choose another folder (--state-dir)"
        ) from error
    try:
        _lock(descriptor, state_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(
            f"another trunkline up is running in {state_dir}; end it, or choose another folder (--state-dir)"
        ) from None
