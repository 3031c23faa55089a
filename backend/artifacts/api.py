"""Blobs over REST: read by who may see them, in parts if they like; written by workers."""

import asyncio
import re
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response, status
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from backend.artifacts.admission import Admission
from backend.artifacts.errors import (
    BlobTooLargeError,
    QuotaError,
    RangeRefusedError,
    StoreFullError,
    UnknownBlobError,
    WrongDigestError,
)
from backend.artifacts.repository import is_visible, lock_blob
from backend.artifacts.service import Blob, note_upload, refuse_hoard
from backend.artifacts.store import BlobWriter
from backend.auth.callers import CallerDep, WorkerParty
from backend.errors import SIGNED_IN, documented
from backend.server import Server, ServerDep

router = APIRouter(prefix="/blobs", tags=["artifacts"])
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256, in hexadecimal.")]
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{0,19})")
_MEDIA_TYPE = "application/octet-stream"
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {_MEDIA_TYPE: {}}, "description": "The whole blob."},
    206: {"content": {_MEDIA_TYPE: {}}, "description": "A part of it."},
}


@router.get(
    "/{digest}",
    response_class=StreamingResponse,
    responses={**documented(*SIGNED_IN, UnknownBlobError, RangeRefusedError), **_BYTES},
)
def read_blob(
    server: ServerDep,
    caller: CallerDep,
    digest: Digest,
    range_: Annotated[str | None, Header(alias="Range", max_length=64)] = None,
) -> Response:
    """Read a blob of your organisation, or the part ``Range: bytes=FIRST-`` of it."""
    raw = bytes.fromhex(digest)
    size = _size(server, raw, caller.organization_id)
    start, end = _part(range_, size)
    headers = _headers(digest, end - start)
    if range_ is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    chunks: Iterator[bytes] = server.store.read(raw, start=start, end=end)
    return StreamingResponse(
        Admission(server, caller).guard(chunks),
        status_code=status.HTTP_200_OK if range_ is None else status.HTTP_206_PARTIAL_CONTENT,
        media_type=_MEDIA_TYPE,
        headers=headers,
    )


@router.head(
    "/{digest}",
    response_class=Response,
    responses={**documented(*SIGNED_IN, UnknownBlobError), 200: {"description": "Its size, in the headers."}},
)
def measure_blob(server: ServerDep, caller: CallerDep, digest: Digest) -> Response:
    """Ask for a blob's size without its bytes."""
    size = _size(server, bytes.fromhex(digest), caller.organization_id)
    return Response(headers=_headers(digest, size), media_type=_MEDIA_TYPE)


@router.put(
    "/{digest}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*SIGNED_IN, WrongDigestError, BlobTooLargeError, StoreFullError, QuotaError),
)
async def write_blob(server: ServerDep, caller: WorkerParty, digest: Digest, request: Request) -> None:
    """Store a blob; sending one again that your organisation has already changes nothing."""
    blob = bytes.fromhex(digest)
    if await asyncio.to_thread(_is_kept, server, blob, caller.organization_id):
        return
    writer = server.store.writer(blob, max_bytes=server.settings.max_blob_bytes)
    admission = Admission(server, caller)
    try:
        await asyncio.to_thread(writer.open)
        async for chunk in request.stream():
            if admission.is_due:
                await asyncio.to_thread(admission.check)
            await asyncio.to_thread(writer.write, chunk)
        await asyncio.to_thread(admission.check)
        await asyncio.to_thread(_keep, server, writer, caller.organization_id)
    except ClientDisconnect:
        return  # nobody listens; the sender begins again
    finally:
        await asyncio.to_thread(writer.close)


def _is_kept(server: Server, digest: bytes, organization_id: uuid.UUID) -> bool:
    """Whether the store has what this organisation has shown to have; a digest alone shows nothing."""
    with server.database.write() as session:
        lock_blob(session, digest)
        if is_visible(session, digest, organization_id) and server.store.has(digest):
            note_upload(session, Blob(digest, server.store.size(digest)), organization_id, now=server.now())
            return True
        refuse_hoard(session, server.settings, organization_id)
        return False


def _keep(server: Server, writer: BlobWriter, organization_id: uuid.UUID) -> None:
    digest = writer.finish()
    with server.database.write() as session:
        lock_blob(session, digest)
        writer.commit()
        note_upload(session, Blob(digest, writer.num_bytes), organization_id, now=server.now())


def _size(server: Server, digest: bytes, organization_id: uuid.UUID) -> int:
    with server.database.read() as session:
        if not is_visible(session, digest, organization_id):
            raise UnknownBlobError(f"your organisation has no blob {digest.hex()}")
    return server.store.size(digest)


def _headers(digest: str, num_bytes: int) -> dict[str, str]:
    return {"Content-Length": str(num_bytes), "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}


def _part(text: str | None, size: int) -> tuple[int, int]:
    if text is None:
        return 0, size
    found = _RANGE.fullmatch(text)
    if found is None:
        raise RangeRefusedError(f"{text[:64]!r} is no range of one part with a beginning")
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if not start < end:
        raise RangeRefusedError(f"the range begins at {start}; the blob has {size} bytes")
    return start, end
