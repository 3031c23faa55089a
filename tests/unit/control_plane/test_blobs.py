"""Downloads that are cut, damaged or too large, and uploads."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from splitlearn.control_plane import blobs
from splitlearn.control_plane.blobs import fetch_blob, read_blob, send_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.requests import Requests
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import StorageError
from tests.unit.control_plane.conftest import run

CONTENT = bytes(range(256)) * 40
BLOB = BlobRef(digest=hashlib.sha256(CONTENT).hexdigest(), num_bytes=len(CONTENT))
Make = Callable[..., Requests]


class Client:
    """A party's client whose session never ends."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    async def with_token(self, request: Callable[[str], Awaitable[Any]]) -> Any:
        return await request("token")


def client(requests: Requests) -> PartyClient:
    return cast("PartyClient", Client(requests))


class Store:
    """Serves one blob, as its tests want it."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.ranges: list[str | None] = []
        self.received = b""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            self.received = request.content
            return httpx2.Response(204)
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if asked is None:
            return httpx2.Response(200, content=self.content)
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        return httpx2.Response(206, content=self.content[start:])


class TestFetchBlob:
    def test_writes_the_file(self, answering: Make, tmp_path: Path) -> None:
        async def test() -> None:
            path = await fetch_blob(client(answering(Store())), BLOB, tmp_path / "a" / "b")
            assert path.read_bytes() == CONTENT

        run(test())

    def test_goes_on_where_it_was_cut(self, answering: Make, tmp_path: Path) -> None:
        store = Store()
        (tmp_path / "b.part").write_bytes(CONTENT[:1000])

        async def test() -> None:
            await fetch_blob(client(answering(store)), BLOB, tmp_path / "b")

        run(test())
        assert store.ranges == ["bytes=1000-"]
        assert (tmp_path / "b").read_bytes() == CONTENT

    def test_begins_anew_where_the_beginning_is_another_files(self, answering: Make, tmp_path: Path) -> None:
        store = Store()
        (tmp_path / "b.part").write_bytes(b"x" * 1000)

        async def test() -> None:
            await fetch_blob(client(answering(store)), BLOB, tmp_path / "b")

        run(test())
        assert store.ranges == ["bytes=1000-", None]
        assert (tmp_path / "b").read_bytes() == CONTENT

    def test_refuses_what_the_digest_does_not_name(self, answering: Make, tmp_path: Path) -> None:
        async def test() -> None:
            with pytest.raises(StorageError, match="came damaged 2 times"):
                await fetch_blob(client(answering(Store(b"y" * len(CONTENT)))), BLOB, tmp_path / "b")

        run(test())
        assert list(tmp_path.iterdir()) == []

    def test_refuses_a_full_disk_before_it_asks(
        self, answering: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        monkeypatch.setattr(blobs, "RESERVE_BYTES", 1 << 60)

        async def test() -> None:
            with pytest.raises(StorageError, match=r"10240 bytes needed .* free space on this disk"):
                await fetch_blob(client(answering(store)), BLOB, tmp_path / "b")

        run(test())
        assert store.ranges == []

    def test_asks_nobody_for_a_file_that_is_there(self, answering: Make, tmp_path: Path) -> None:
        store = Store()
        (tmp_path / "b").write_bytes(CONTENT)

        async def test() -> None:
            await fetch_blob(client(answering(store)), BLOB, tmp_path / "b")

        run(test())
        assert store.ranges == []


class TestReadBlob:
    def test_refuses_a_large_one(self, answering: Make) -> None:
        async def test() -> None:
            with pytest.raises(StorageError, match="has 10240 bytes; the limit is 10"):
                await read_blob(client(answering(Store())), BLOB, max_bytes=10)

        run(test())


class TestSendBlob:
    def test_sends_the_whole_file(self, answering: Make, tmp_path: Path) -> None:
        store = Store()
        (tmp_path / "b").write_bytes(CONTENT)

        async def test() -> None:
            assert await send_blob(client(answering(store)), tmp_path / "b") == BLOB

        run(test())
        assert store.received == CONTENT

    def test_names_a_file_that_cannot_be_read(self, answering: Make, tmp_path: Path) -> None:
        async def test() -> None:
            with pytest.raises(StorageError, match="cannot read"):
                await send_blob(client(answering(Store())), tmp_path / "none")

        run(test())
