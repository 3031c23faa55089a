"""A registered model's files, as far as a party needs them, in a folder that loading understands."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from splitlearn.control_plane.blobs import RESERVE_BYTES, fetch_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.durable_file import read_if_there, write_durably
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import ModelError, NoSpaceError, StorageError
from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.manifest import MAX_MANIFEST_BYTES, BlobFile, ModelManifest

_FILES_AT_ONCE = 4
_MANIFEST_REFERENCE = "@sha256:"


def manifest_digest(model: str) -> str:
    """Return the digest in a signed specification's ``model``, which is ``NAME@sha256:<digest>``.

    Raises:
        ModelError: It has none.
    """
    _, found, digest = model.partition(_MANIFEST_REFERENCE)
    if not found:
        raise ModelError(
            f"the specification's model {model!r} names no manifest; the control plane adds "
            "'@sha256:<digest>' before it signs"
        )
    return digest


async def fetch_manifest(client: PartyClient, digest: str, cache: Path) -> ModelManifest:
    """Return a model's manifest, kept in the cache and checked against its digest each time.

    Raises:
        ModelError: What came is not what the digest names.
    """
    path = cache / "manifests" / f"{digest}.json"
    raw = await asyncio.to_thread(read_if_there, path, max_bytes=MAX_MANIFEST_BYTES)
    if raw is None:
        raw = await client.manifest(digest)
        manifest = ModelManifest.parse(raw, digest=digest)
        await asyncio.to_thread(write_durably, path, raw)
        return manifest
    return ModelManifest.parse(raw, digest=digest)


async def fetch_model(
    client: PartyClient,
    digest: str,
    *,
    roles: Iterable[Role],
    bottom_layers: int,
    top_layers: int,
    cache: Path,
    tokenizer: bool,
) -> Path:
    """Download what these segments of a model are loaded from, and return a folder of it.

    Args:
        client: Of a party of the job.
        digest: Of the manifest, from the signed specification.
        roles: Segments that will be loaded.
        bottom_layers: Layers below the trunk.
        top_layers: Layers above it.
        cache: Holds every blob once, whatever jobs and cuts it is for.
        tokenizer: Whether tokenizer and generation settings are wanted too.

    Returns:
        A folder that ``ModelFolder.open`` takes; it names the files of all layers and holds these roles'.

    Raises:
        ModelError: The manifest is not what the specification names, or the cut does not fit.
        StorageError: The disk is too small for it, or refused.
    """
    manifest = await fetch_manifest(client, digest, cache)
    cut = Cut(bottom_layers=bottom_layers, top_layers=top_layers, num_layers=manifest.num_layers)
    wanted: list[BlobFile] = [*manifest.files_for(roles, cut)]
    if tokenizer:
        wanted += manifest.companions
    _refuse_full_disk(wanted, cache)
    gate = asyncio.Semaphore(_FILES_AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            for file in {file.digest: file for file in wanted}.values():
                group.create_task(_fetch(client, file, cache, gate))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return await asyncio.to_thread(_materialise, manifest, digest, wanted, cache)


async def _fetch(client: PartyClient, file: BlobFile, cache: Path, gate: asyncio.Semaphore) -> None:
    async with gate:
        blob = BlobRef(digest=file.digest, num_bytes=file.num_bytes)
        await fetch_blob(client, blob, _blob_path(cache, file.digest))


def _blob_path(cache: Path, digest: str) -> Path:
    return cache / "blobs" / digest[:2] / digest


def _refuse_full_disk(wanted: Iterable[BlobFile], cache: Path) -> None:
    missing = {file.digest: file.num_bytes for file in wanted if not _blob_path(cache, file.digest).exists()}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise StorageError(
            f"cannot use the cache {cache}: {error.strerror}; choose another folder"
        ) from error
    needed = sum(missing.values())
    if needed and free < needed + RESERVE_BYTES:
        numbers = f"{needed} bytes needed and {RESERVE_BYTES} kept in reserve, {free} free"
        raise NoSpaceError(
            f"no space for the model in {cache}: {numbers}; free space, or put the state folder on a "
            "larger disk",
            public=f"its disk is full: {numbers} for the model; free space there, then retry the job",
        )


def _materialise(manifest: ModelManifest, digest: str, wanted: Iterable[BlobFile], cache: Path) -> Path:
    """Lay out a folder of links to the cached files, under a name of its own for each set of files."""
    files = {file.name: file.digest for file in wanted}
    key = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "models" / f"{digest[:16]}-{key}"
    write_durably(folder / "config.json", json.dumps(manifest.config, indent=2).encode())
    index = json.dumps(manifest.index(), indent=2).encode()
    write_durably(folder / "model.safetensors.index.json", index)
    for name, blob in files.items():
        _link(_blob_path(cache, blob), folder / name)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    except OSError as error:
        raise StorageError(f"cannot link {target} to {source}: {error.strerror}; see its disk") from error
