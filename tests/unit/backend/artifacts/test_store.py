import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pytest

from backend.artifacts.errors import (
    BlobTooLargeError,
    StoreFullError,
    UnknownBlobError,
    WrongDigestError,
)
from backend.artifacts.store import ArtifactStore, BlobWriter, put_file
from splitlearn.errors import StorageError

LIMIT = 1 << 20
MakeStore = Callable[..., ArtifactStore]


@pytest.fixture(params=["folder", "bucket"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """A folder, or fsspec's own object store in memory, which has no rename and no file descriptor."""
    url = str(tmp_path / "artifacts") if request.param == "folder" else f"memory://{tmp_path.name}"
    yield lambda **limits: ArtifactStore(url, **limits)
    if request.param == "bucket":
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def store(make_store: MakeStore) -> ArtifactStore:
    return make_store()


def put(
    store: ArtifactStore, data: bytes, *, announced: bytes | None = None, max_bytes: int = LIMIT
) -> bytes:
    with store.writer(announced, max_bytes=max_bytes) as writer:
        writer.write(data)
        return writer.commit()


def everything(store: ArtifactStore) -> list[str]:
    files: list[str] = store._files.find(store._root)
    return files


class TestWrite:
    def test_a_blob_lies_under_its_digest(self, store: ArtifactStore) -> None:
        digest = put(store, b"hello")
        assert digest == sha256(b"hello").digest()
        assert b"".join(store.read(digest)) == b"hello"

    def test_the_same_again_changes_nothing(self, store: ArtifactStore) -> None:
        digest = put(store, b"hello")
        assert put(store, b"hello") == digest
        assert len(everything(store)) == 1

    def test_an_empty_blob_is_one(self, store: ArtifactStore) -> None:
        assert store.size(put(store, b"")) == 0

    def test_nothing_is_visible_before_the_commit(self, store: ArtifactStore) -> None:
        with store.writer(None, max_bytes=LIMIT) as writer:
            writer.write(b"hello")
            assert not store.has(sha256(b"hello").digest())

    def test_a_local_file_goes_in(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * 3_000_000)
        with pytest.raises(BlobTooLargeError):
            put_file(store, tmp_path / "file", max_bytes=LIMIT)
        digest, num_bytes = put_file(store, tmp_path / "file", max_bytes=4 * LIMIT)
        assert (store.size(digest), num_bytes) == (3_000_000, 3_000_000)


class TestNothingStays:
    def test_of_other_bytes_than_announced(self, store: ArtifactStore) -> None:
        with pytest.raises(WrongDigestError, match="6 bytes came"):
            put(store, b"others", announced=sha256(b"wanted").digest())
        assert everything(store) == []

    def test_of_too_much(self, store: ArtifactStore) -> None:
        with pytest.raises(BlobTooLargeError, match="larger than 4 bytes"):
            put(store, b"five!", max_bytes=4)
        assert everything(store) == []

    def test_of_a_full_disk(self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with store.writer(None, max_bytes=LIMIT) as writer:
            monkeypatch.setattr(writer._file, "write", refuse)
            with pytest.raises(StoreFullError, match="No space left"):
                writer.write(b"hello")
        assert everything(store) == []

    def test_of_a_writer_that_gave_up(self, store: ArtifactStore) -> None:
        with store.writer(None, max_bytes=LIMIT) as writer:
            writer.write(b"hello")
        assert everything(store) == []


class TestRead:
    @pytest.mark.parametrize(("start", "end", "text"), [(0, 5, b"01234"), (7, None, b"789"), (3, 3, b"")])
    def test_a_part(self, start: int, end: int | None, text: bytes, store: ArtifactStore) -> None:
        digest = put(store, b"0123456789")
        assert b"".join(store.read(digest, start=start, end=end)) == text

    def test_an_absent_blob_has_no_size(self, store: ArtifactStore) -> None:
        with pytest.raises(UnknownBlobError):
            store.size(bytes(32))


class TestRemove:
    def test_what_was_removed_is_gone(self, store: ArtifactStore) -> None:
        digest = put(store, b"hello")
        store.delete(digest)
        assert not store.has(digest)

    def test_removing_what_is_absent_changes_nothing(self, store: ArtifactStore) -> None:
        store.delete(bytes(32))

    def test_finds_blobs_by_their_age(self, store: ArtifactStore) -> None:
        digest = put(store, b"hello")
        now = datetime.now(UTC)
        assert store.older_than(now - timedelta(minutes=1)) == []
        assert store.older_than(now + timedelta(minutes=1)) == [digest]

    def test_drops_what_a_killed_writer_left(self, store: ArtifactStore) -> None:
        store._files.pipe(f"{store._root}/incoming/left", b"half")
        store.drop_unfinished(datetime.now(UTC) - timedelta(minutes=1))
        assert len(everything(store)) == 1
        store.drop_unfinished(datetime.now(UTC) + timedelta(minutes=1))
        assert everything(store) == []


class TestFolder:
    def test_keeps_a_reserve(self, tmp_path: Path) -> None:
        store = ArtifactStore(str(tmp_path / "artifacts"), reserve_bytes=1 << 60)
        with pytest.raises(StoreFullError, match=r"bytes free, \d+ are kept in reserve"):
            put(store, b"hello")

    def test_is_durable_before_it_is_visible(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[bool] = []
        digest = sha256(b"hello").digest()
        store = ArtifactStore(str(tmp_path / "artifacts"))
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(store.has(digest)))
        put(store, b"hello")
        assert synced == [False, True]  # the file, then the folder that has its name

    def test_another_failure_is_not_taken_for_a_full_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: bytes) -> int:
            raise OSError(errno.EIO, "Input/output error")

        with ArtifactStore(str(tmp_path)).writer(None, max_bytes=LIMIT) as writer:
            monkeypatch.setattr(writer._file, "write", refuse)
            with pytest.raises(OSError, match="Input/output error"):
                writer.write(b"hello")


class TestOpen:
    def test_a_missing_library_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: str) -> Any:
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
        with pytest.raises(StorageError, match=r"Install s3fs.*pip install 'trunkline\[s3\]'"):
            ArtifactStore("s3://bucket/trunkline")

    def test_an_unknown_kind_of_address_is_refused(self) -> None:
        with pytest.raises(StorageError, match="Protocol not known"):
            ArtifactStore("nowhere://bucket")

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="correct the setting"):
            ArtifactStore(str(tmp_path / "file" / "artifacts"))


def test_a_writer_that_never_opened_closes(store: ArtifactStore) -> None:
    writer = store.writer(None, max_bytes=LIMIT)
    assert isinstance(writer, BlobWriter)
    writer.close()
    assert everything(store) == []
