"""Two API processes on one database: what is counted and locked in one holds in the other."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.artifacts.repository import lock_blob
from backend.artifacts.retention import GRACE, sweep
from backend.db import Database
from backend.events.bus import Bus
from tests.unit.backend.conftest import Api, World

WRONG = {"name": "admin", "password": "guess"}


@pytest.fixture
def other(world: World) -> Iterator[Api]:
    """The same control plane, as a second process of its own."""
    ours = world.server
    database = Database(ours.settings.resolved_database_url)
    server = replace(ours, database=database, bus=Bus())
    with TestClient(create_app(server), raise_server_exceptions=False) as client:
        yield Api(client)
    database.dispose()


class TestSignIn:
    def test_failures_at_either_count_for_both(self, world: World, other: Api) -> None:
        limit = world.server.settings.sign_in_failures_per_name
        for number in range(limit):
            assert (world.anybody, other)[number % 2].refused("POST", "/sign-in", WRONG)[0] == 401
        right = {"name": "admin", "password": world.first.password}
        assert other.refused("POST", "/sign-in", right) == (429, "sign_in_throttled")
        assert world.anybody.refused("POST", "/sign-in", right) == (429, "sign_in_throttled")

    def test_right_at_one_forgives_at_the_other(self, world: World, other: Api) -> None:
        limit = world.server.settings.sign_in_failures_per_name
        for _ in range(3):
            for _ in range(limit - 1):
                world.anybody.refused("POST", "/sign-in", WRONG)
            other.ok("POST", "/sign-in", {"name": "admin", "password": world.first.password})

    def test_a_token_of_one_is_good_and_ends_at_the_other(self, world: World, other: Api) -> None:
        assert world.admin.token is not None
        other.as_(world.admin.token).ok("POST", "/sign-out")
        assert world.admin.refused("GET", "/me") == (401, "not_signed_in")


class TestBlob:
    def test_is_not_removed_while_the_other_makes_it_visible(self, world: World) -> None:
        server, data = world.server, b"0123456789"
        digest = sha256(data).digest()
        with server.store.writer(None, max_bytes=99) as writer:
            writer.write(data)
            writer.commit()
        elsewhere = Database(server.settings.resolved_database_url)
        later = datetime.now(UTC) + 2 * GRACE  # the file is as old as this machine's clock says
        sweeper = threading.Thread(target=sweep, args=[elsewhere, server.store], kwargs={"now": later})
        with server.database.write() as session:
            lock_blob(session, digest)
            sweeper.start()
            sweeper.join(0.3)  # enough to remove it, if nothing held it
            assert server.store.has(digest)
        sweeper.join(20)
        assert not server.store.has(digest)  # nothing refers to it
        elsewhere.dispose()
