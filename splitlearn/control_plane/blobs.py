"""Blobs of the artifact store: fetched in parts if need be, believed only by their digest."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import RefusedError
from splitlearn.control_plane.requests import bearer, check
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import NoSpaceError, StorageError

RESERVE_BYTES = 64 << 20
"""Left free on a disk that is downloaded to."""

_CHUNK_BYTES = 1 << 20
_MAX_TRANSFER_SECONDS_WITHOUT_BYTES = 60.0
_TIMEOUT = httpx2.Timeout(_MAX_TRANSFER_SECONDS_WITHOUT_BYTES, connect=10.0)
_TRIES_PER_DIGEST = 2
_RANGE_REFUSED = 416


async def fetch_blob(client: PartyClient, blob: BlobRef, target: Path) -> Path:
    """Download a blob, unless the file is there; what an interrupted download left is gone on from.

    Args:
        client: Of a party that may see the blob.
        blob: Digest and size.
        target: The file; it appears whole, verified and flushed to the disk.

    Raises:
        StorageError: The disk is full or refused, or what came is not what the digest names.
        RefusedError: There is no such blob for this party.
    """
    if _is_there(target):
        return target
    partial = target.with_name(f"{target.name}.part")
    _make_room(target, blob, partial)
    for _ in range(_TRIES_PER_DIGEST):
        await client.with_token(lambda token: _fill(client, token, blob, partial))
        if await asyncio.to_thread(_digest_of, partial) == blob.digest:
            _make_visible(partial, target)
            return target
        _forget(partial)  # a wrong beginning would be kept for ever
    raise StorageError(
        f"blob {blob.digest[:16]}... came damaged {_TRIES_PER_DIGEST} times; see what lies between this "
        "machine and the control plane, and whether its store is sound"
    )


async def read_blob(client: PartyClient, blob: BlobRef, *, max_bytes: int) -> bytes:
    """Return a small blob's content.

    Raises:
        StorageError: It is larger than ``max_bytes``, or not what its digest names.
    """
    if blob.num_bytes > max_bytes:
        raise StorageError(f"blob {blob.digest[:16]}... has {blob.num_bytes} bytes; the limit is {max_bytes}")
    content = await client.with_token(
        lambda token: client.requests.send("GET", f"/blobs/{blob.digest}", token=token)
    )
    if hashlib.sha256(content).hexdigest() != blob.digest:
        raise StorageError(f"blob {blob.digest[:16]}... came damaged; try again")
    return content


async def send_blob(client: PartyClient, source: Path) -> BlobRef:
    """Upload a file; one that the store has already costs no transfer of note.

    Raises:
        RefusedError: The store is full or refuses.
        StorageError: The file cannot be read.
    """
    blob = await asyncio.to_thread(describe_file, source)

    async def put(token: str) -> None:
        headers = {
            **bearer(token),
            "Content-Length": str(blob.num_bytes),
            "Content-Type": "application/octet-stream",
        }

        async def once() -> None:
            response = await client.requests.http.put(
                f"/blobs/{blob.digest}", content=_chunks(source), headers=headers, timeout=_TIMEOUT
            )
            await check(response)

        await client.requests.patiently(once)

    await client.with_token(put)
    return blob


def describe_file(source: Path) -> BlobRef:
    """Return the digest and size of a file.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return BlobRef(digest=_digest_of(source), num_bytes=source.stat().st_size)
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error.strerror}; correct its permissions") from error


async def _fill(client: PartyClient, token: str, blob: BlobRef, partial: Path) -> None:
    async def once() -> None:
        start = _begun_bytes(partial, blob)
        if start is not None and start == blob.num_bytes:
            return
        await _append(client, token, blob, partial, start=start or 0)
        if _begun_bytes(partial, blob) != blob.num_bytes:
            raise httpx2.RemoteProtocolError("the download ended early")

    await client.requests.patiently(once)


async def _append(client: PartyClient, token: str, blob: BlobRef, partial: Path, *, start: int) -> None:
    headers = {**bearer(token), **({"Range": f"bytes={start}-"} if start else {})}
    path = f"/blobs/{blob.digest}"
    async with client.requests.http.stream("GET", path, headers=headers, timeout=_TIMEOUT) as response:
        if response.status_code == _RANGE_REFUSED:
            _forget(partial)
        await check(response)
        is_part = response.status_code == httpx2.codes.PARTIAL_CONTENT
        await _write(response, partial, start=start if is_part else 0, limit=blob.num_bytes)


async def _write(response: httpx2.Response, partial: Path, *, start: int, limit: int) -> None:
    written = start
    try:
        with partial.open("ab" if start else "wb") as file:
            async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                written += len(chunk)
                if written > limit:
                    raise RefusedError(f"the control plane sends more than the {limit} bytes of the blob")
                await asyncio.to_thread(file.write, chunk)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
    except OSError as error:
        raise _disk_refused(partial, error) from error


async def _chunks(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk


def _is_there(path: Path) -> bool:
    return path.exists()


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _begun_bytes(partial: Path, blob: BlobRef) -> int | None:
    """Return how much of a blob an earlier try has brought; None where there is no file of use."""
    try:
        size = partial.stat().st_size
    except FileNotFoundError:
        return None
    if size > blob.num_bytes:
        _forget(partial)
        return None
    return size


def _make_room(target: Path, blob: BlobRef, partial: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        there = partial.stat().st_size if partial.exists() else 0
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise _disk_refused(target, error) from error
    needed = max(0, blob.num_bytes - there)
    if free < needed + RESERVE_BYTES:
        numbers = f"{needed} bytes needed and {RESERVE_BYTES} kept in reserve, {free} free"
        raise NoSpaceError(
            f"no space for {target}: {numbers}; free space on this disk, then try again",
            public=f"its disk is full: {numbers}; free space there, then retry the job",
        )


def _make_visible(partial: Path, target: Path) -> None:
    try:
        partial.replace(target)
    except OSError as error:
        raise _disk_refused(target, error) from error


def _disk_refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; free space or correct its folder's permissions"
    )


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
