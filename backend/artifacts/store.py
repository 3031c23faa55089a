"""Blobs by SHA-256, on a folder or on whatever fsspec knows (S3 and others).

A blob is written under a temporary name and becomes visible by a rename (on object stores: by a copy) after
its digest was found right: what is visible is whole.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from backend.artifacts.errors import BlobTooLargeError, StoreFullError, UnknownBlobError, WrongDigestError
from splitlearn.errors import StorageError

CHUNK_BYTES = 1 << 20
_TEMPORARY = "incoming"
_BLOBS = "sha256"


class ArtifactStore:
    """A content-addressed store.

    Args:
        url: A folder's path, or an fsspec URL such as ``s3://bucket/prefix``; None for a store that is
            never asked.
        reserve_bytes: Space that is left free on a folder's disk.

    Raises:
        StorageError: The URL's kind needs a library that is missing, or the folder cannot be made.
    """

    def __init__(self, url: str | None = None, *, reserve_bytes: int = 64 << 20) -> None:
        self._reserve_bytes = reserve_bytes
        self._files: Any = None
        self._root = ""
        if url is not None:
            self._open(url)

    def _open(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
            self._files.makedirs(f"{self._root}/{_TEMPORARY}", exist_ok=True)
        except ImportError as error:
            raise StorageError(
                f"TRUNKLINE_ARTIFACTS_URL {url[:200]!r} needs a library that is missing ({error}); "
                "install it: pip install 'trunkline[s3]'"
            ) from error
        except (OSError, ValueError) as error:
            raise StorageError(
                f"artifacts cannot be kept at {self._root or 'TRUNKLINE_ARTIFACTS_URL'}: {error}; "
                "correct the setting, or the rights of the folder"
            ) from error

    def has(self, digest: bytes) -> bool:
        """Whether a blob is there, whole."""
        return bool(self._files.exists(self._path(digest)))

    def size(self, digest: bytes) -> int:
        """Return a blob's size.

        Raises:
            UnknownBlobError: It is not there.
        """
        try:
            return int(self._files.size(self._path(digest)))
        except FileNotFoundError as error:
            raise UnknownBlobError(f"the store has no blob {digest.hex()}") from error

    def read(self, digest: bytes, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield a blob's bytes from ``start`` up to ``end``, chunk by chunk."""
        left = (self.size(digest) if end is None else end) - start
        with self._files.open(self._path(digest), "rb") as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def writer(self, digest: bytes | None, *, max_bytes: int) -> "BlobWriter":
        """Return a context that takes a blob's chunks.

        Args:
            digest: What the bytes must come to; None where it is to be found out.
            max_bytes: Largest blob.
        """
        return BlobWriter(
            self._files,
            temporary=f"{self._root}/{_TEMPORARY}/{secrets.token_hex(16)}",
            path_of=self._path,
            digest=digest,
            max_bytes=max_bytes,
            reserve_bytes=self._reserve_bytes,
        )

    def delete(self, digest: bytes) -> None:
        """Remove a blob, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm(self._path(digest))

    def older_than(self, moment: datetime) -> list[bytes]:
        """Return the blobs that were written before a moment."""
        return [bytes.fromhex(path.rpartition("/")[2]) for path in self._written_before(_BLOBS, moment)]

    def drop_unfinished(self, moment: datetime) -> None:
        """Remove what was begun before a moment and never finished: its writer was killed."""
        for path in self._written_before(_TEMPORARY, moment):
            with suppress(FileNotFoundError):
                self._files.rm(path)

    def _written_before(self, folder: str, moment: datetime) -> list[str]:
        self._files.invalidate_cache()
        found: list[str] = []
        for path in self._files.find(f"{self._root}/{folder}"):
            with suppress(FileNotFoundError):
                if self._files.modified(path).astimezone(UTC) < moment:
                    found.append(path)
        return found

    def _path(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self._root}/{_BLOBS}/{name[:2]}/{name}"


class BlobWriter:
    """One blob on its way in; nothing is visible before :meth:`commit`, nothing stays without it.

    Made by :meth:`ArtifactStore.writer`. Use as a context, or call :meth:`open` and :meth:`close`.
    """

    def __init__(
        self,
        files: Any,
        *,
        temporary: str,
        path_of: Any,
        digest: bytes | None,
        max_bytes: int,
        reserve_bytes: int,
    ) -> None:
        self._files, self._temporary, self._path_of = files, temporary, path_of
        self._digest, self._max_bytes, self._reserve_bytes = digest, max_bytes, reserve_bytes
        self._is_local = isinstance(files, LocalFileSystem)
        self._sha256 = hashlib.sha256()
        self._file: Any = None
        self.num_bytes = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Begin.

        Raises:
            StoreFullError: The disk's reserve is touched.
        """
        self._refuse_full_disk()
        with self._no_space_refused():
            self._file = self._files.open(self._temporary, "wb")

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            BlobTooLargeError: More than the limit.
            StoreFullError: No space.
        """
        self.num_bytes += len(chunk)
        if self.num_bytes > self._max_bytes:
            raise BlobTooLargeError(f"the blob is larger than {self._max_bytes} bytes")
        self._sha256.update(chunk)
        with self._no_space_refused():
            self._file.write(chunk)

    def finish(self) -> bytes:
        """Make the bytes durable under their temporary name; return their digest.

        Raises:
            WrongDigestError: They are others than announced.
            StoreFullError: No space.
        """
        found = self._sha256.digest()
        if self._digest is not None and found != self._digest:
            raise WrongDigestError(
                f"{self.num_bytes} bytes came with digest {found.hex()}, announced was {self._digest.hex()}"
            )
        with self._no_space_refused():
            if self._is_local:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
        return found

    def commit(self) -> bytes:
        """Make the blob visible; return its digest. Errors as of :meth:`finish`, which may come before."""
        found = self._sha256.digest() if self._file.closed else self.finish()
        target: str = self._path_of(found)
        with self._no_space_refused():
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            if self._is_local:
                Path(self._temporary).replace(target)
                _make_durable(Path(target).parent)
            else:
                self._files.mv(self._temporary, target)
        return found

    def close(self) -> None:
        """End; what was not committed is removed."""
        if self._file is None:
            return
        if not self._file.closed:
            # A buffer that a full disk does not take is of no use any more.
            with suppress(OSError):
                self._file.close()
        with suppress(FileNotFoundError):
            self._files.rm(self._temporary)

    def _refuse_full_disk(self) -> None:
        if not self._is_local:
            return
        free = shutil.disk_usage(Path(self._temporary).parent).free
        if free < self._reserve_bytes:
            raise StoreFullError(
                f"the disk of the control plane's artifact store has {free} bytes free, "
                f"{self._reserve_bytes} are kept in reserve"
            )

    @contextmanager
    def _no_space_refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise StoreFullError(
                f"the control plane's artifact store cannot be written: {error.strerror}, "
                f"after {self.num_bytes} bytes of a blob"
            ) from error


def _make_durable(folder: Path) -> None:
    """Write a folder's entries to the disk: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_file(store: ArtifactStore, path: Path, *, max_bytes: int) -> tuple[bytes, int]:
    """Store a local file; return digest and size."""
    with path.open("rb") as source, store.writer(None, max_bytes=max_bytes) as writer:
        while chunk := source.read(CHUNK_BYTES):
            writer.write(chunk)
        return writer.commit(), writer.num_bytes
