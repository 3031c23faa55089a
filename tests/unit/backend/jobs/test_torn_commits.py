"""A round's commit that is cut at any of its writes: the old checkpoint counts or the new one, and whole."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from backend.server import Server
from tests.unit.backend.jobs.conftest import Federation

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove"})
_MAX_WRITES = 100


class PowerCutError(Exception):
    """Nothing that the code knows of."""


class Cutter:
    """Counts the writes of artifact store and database while it is armed, and cuts at one of them."""

    def __init__(self) -> None:
        self._left: int | None = None
        self.root = ""
        sys.addaudithook(self._hear)  # which cannot be taken back: it does nothing unless it is armed

    def arm(self, number: int) -> None:
        self._left = number

    def disarm(self) -> bool:
        """Stop counting; whether it has cut."""
        was_armed, self._left = self._left, None
        return was_armed == 0

    def strike(self, *_: object) -> None:
        if not self._left:
            return
        self._left -= 1
        if self._left == 0:
            raise PowerCutError

    def strike_before(self, connection: Connection) -> None:
        """Cut before a transaction is committed: with its process goes its connection, and what it wrote."""
        try:
            self.strike()
        except PowerCutError:
            connection.invalidate()
            raise

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self._left or not self.root:
            return
        is_open = name == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
        if (is_open or name in _CHANGES) and str(arguments[0]).startswith(self.root):
            self.strike()


@pytest.fixture(scope="module")
def _cutter() -> Cutter:
    return Cutter()


@pytest.fixture
def cutter(_cutter: Cutter, federation: Federation) -> Iterator[Cutter]:
    server: Server = federation.world.server
    _cutter.root = str(server.settings.state_dir)
    event.listen(server.database.engine, "commit", _cutter.strike_before)
    event.listen(Session, "after_commit", _cutter.strike)
    yield _cutter
    event.remove(server.database.engine, "commit", _cutter.strike_before)
    event.remove(Session, "after_commit", _cutter.strike)
    _cutter.root = ""


def newest(federation: Federation, job_id: str) -> int:
    """The round that a worker would go on after; its checkpoint is there and whole."""
    checkpoint = federation.lease(job_id)["checkpoint"]
    blob = checkpoint["blob"]
    content = federation.parties["worker"]("GET", f"/blobs/{blob['digest']}").content
    assert hashlib.sha256(content).hexdigest() == blob["digest"]
    assert len(content) == blob["num_bytes"]
    return int(checkpoint["round"])


def commit_cut_at(federation: Federation, cutter: Cutter, number: int, *, uploads: bool) -> tuple[int, bool]:
    """Cut the second round's commit at a write, with its upload or after it; then say the same again.

    Returns:
        The round that counted after the cut, and whether there was one.
    """
    job_id = federation.running(name=f"job-{number}-{int(uploads)}")
    federation.commit(job_id, 1)
    path, content = f"/worker/leases/{job_id}/0/rounds", f"cut {number} {uploads}".encode()
    body = None if uploads else federation.commit_body(2, content=content)
    cutter.arm(number)
    is_answered = False
    with contextlib.suppress(PowerCutError, AssertionError):  # a lost answer, or a 500
        federation.parties["worker"].ok("POST", path, body or federation.commit_body(2, content=content))
        is_answered = True
    was_cut = cutter.disarm()
    assert is_answered is not was_cut
    counted = newest(federation, job_id)
    federation.parties["worker"].ok("POST", path, federation.commit_body(2, content=content))
    assert newest(federation, job_id) == 2
    assert federation.job(job_id)["rounds_committed"] == 2
    federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
    federation.look()
    return counted, was_cut


@pytest.mark.parametrize(("kind", "least_writes"), [("upload and commit", 6), ("commit alone", 2)])
def test_cut_anywhere_counts_or_does_not(
    kind: str, least_writes: int, federation: Federation, cutter: Cutter
) -> None:
    counted: list[int] = []
    for number in range(1, _MAX_WRITES):
        found, was_cut = commit_cut_at(federation, cutter, number, uploads="upload" in kind)
        counted.append(found)
        if not was_cut:
            break
    assert not was_cut, "it never came to an end"
    assert len(counted) > least_writes
    assert counted == sorted(counted), "a later cut leaves no less"
    assert set(counted) == {1, 2}
