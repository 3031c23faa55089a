"""What a route needs besides its request, made once and handed over by FastAPI."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from backend.artifacts.store import ArtifactStore
from backend.auth.passwords import Passwords
from backend.clock import Clock, system_clock
from backend.db import Database
from backend.events.bus import Bus
from backend.federation.authority import Authority
from backend.openid.provider import Provider
from backend.settings import Settings


@dataclass(frozen=True, slots=True)
class Server:
    """The outside world of the control plane.

    Attributes:
        settings: As read at the entry point.
        database: The truth.
        authority: The federation root: embedded, or known by its public key only.
        passwords: Hashes them, a few at a time.
        now: The server's clock.
        bus: Wakes who waits for the database to change.
        store: Blobs by digest.
        openid: Who else vouches for people; None where nobody does.
    """

    settings: Settings
    database: Database
    authority: Authority
    passwords: Passwords
    now: Clock = system_clock
    bus: Bus = field(default_factory=Bus)
    store: ArtifactStore = field(default_factory=ArtifactStore)
    openid: Provider | None = None


def _server_of(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


ServerDep = Annotated[Server, Depends(_server_of)]
