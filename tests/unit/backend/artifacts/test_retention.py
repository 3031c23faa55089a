import os
import threading
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from backend.artifacts.retention import GRACE, sweep
from backend.artifacts.store import BlobWriter
from tests.unit.backend.artifacts.conftest import Blobs, Shelf
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World

DATA = b"0123456789"


def swept(world: World) -> int:
    server = world.server
    return sweep(server.database, server.store, now=server.now())


def has(world: World) -> bool:
    return world.server.store.has(sha256(DATA).digest())


def age(world: World) -> None:
    """Make the store's files as old as the test's clock says that the world is."""
    for path in Path(world.server.store._root).rglob("*"):
        moment = (world.clock() - 2 * GRACE).timestamp()
        os.utime(path, (moment, moment))


class TestSweep:
    def test_keeps_what_something_refers_to(self, world: World, worker: Blobs, shelf: Shelf) -> None:
        worker.put(DATA)
        shelf.attach(DATA)
        world.clock.advance(days=400)
        age(world)
        assert (swept(world), has(world)) == (0, True)

    def test_removes_what_expired_at_once(self, world: World, worker: Blobs, shelf: Shelf) -> None:
        worker.put(DATA)
        shelf.attach(DATA, keep=timedelta(days=1))
        assert swept(world) == 0
        world.clock.advance(days=1)
        assert (swept(world), has(world)) == (1, False)

    def test_keeps_a_blob_that_another_reference_needs(
        self, world: World, worker: Blobs, shelf: Shelf
    ) -> None:
        worker.put(DATA)
        shelf.attach(DATA)
        shelf.attach(DATA, keep=timedelta(days=1))
        world.clock.advance(days=2)
        assert (swept(world), has(world)) == (0, True)

    def test_what_was_sent_waits_for_its_reference(self, world: World, worker: Blobs) -> None:
        worker.put(DATA)
        world.clock.advance(seconds=GRACE.total_seconds() - 1)
        assert (swept(world), has(world)) == (0, True)
        world.clock.advance(seconds=2)
        assert (swept(world), has(world)) == (1, False)

    def test_sending_it_again_makes_it_wait_anew(self, world: World, worker: Blobs) -> None:
        worker.put(DATA)
        world.clock.advance(seconds=GRACE.total_seconds() - 1)
        worker.put(DATA)
        world.clock.advance(seconds=2)
        assert (swept(world), has(world)) == (0, True)

    @ON_SQLITE_ALONE
    def test_finds_what_a_killed_program_left(self, world: World) -> None:
        with world.server.store.writer(None, max_bytes=99) as writer:
            writer.write(DATA)
            writer.commit()
        assert (swept(world), has(world)) == (0, True)
        age(world)
        assert (swept(world), has(world)) == (1, False)


class TestRaces:
    def test_a_blob_that_is_just_arriving_is_kept(
        self,
        world: World,
        worker: Blobs,
        foreign_worker: Blobs,
        shelf: Shelf,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its only reference expires while another organisation's upload of it becomes visible."""
        worker.put(DATA)
        shelf.attach(DATA, keep=timedelta(minutes=1))
        world.clock.advance(minutes=1)
        sweeper = threading.Thread(target=swept, args=[world])
        commit = BlobWriter.commit

        def commit_and_meet_the_sweeper(writer: BlobWriter) -> bytes:
            digest = commit(writer)
            sweeper.start()
            sweeper.join(0.3)  # enough to remove the blob, if nothing held it
            return digest

        monkeypatch.setattr(BlobWriter, "commit", commit_and_meet_the_sweeper)
        assert foreign_worker.put(DATA).status_code == 204
        sweeper.join(10)
        assert has(world)
