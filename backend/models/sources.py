"""Where a model comes from: a folder that the operator allows, or the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from backend.models.errors import SourceRefusedError
from splitlearn.errors import ModelError

FOLDER, HUB = "folder:", "hub:"
_HUB_ID = re.compile(r"[a-z0-9][\w.-]{0,95}/[a-z0-9][\w.-]{0,95}(@[\w./-]{1,128})?", re.ASCII | re.IGNORECASE)
_WANTED = ("*.safetensors", "*.json", "*.jinja")
"""Never a pickle, never code."""


def check_source(source: str, allowed: Sequence[Path]) -> str:
    """Return a source in its one form.

    Raises:
        SourceRefusedError: It is none, or its folder is not below one that the operator allows.
    """
    if source.startswith(HUB):
        hub_id = source.removeprefix(HUB)
        if _HUB_ID.fullmatch(hub_id) is None or ".." in hub_id:
            raise SourceRefusedError(f"source: {source[:200]!r} is no hub:OWNER/NAME[@REVISION]")
        return source
    if not source.startswith(FOLDER):
        raise SourceRefusedError(f"source: {source[:200]!r} begins with neither {HUB!r} nor {FOLDER!r}")
    path = Path(source.removeprefix(FOLDER)).resolve()
    if not _is_below(path, allowed):
        raise SourceRefusedError(f"source: {str(path)[:200]!r} lies below no folder that may be registered")
    return f"{FOLDER}{path}"


def opened(source: str, allowed: Sequence[Path], *, downloads: Path) -> Path:
    """Return the folder that a source's files are in.

    Args:
        source: As :func:`check_source` gave it.
        allowed: Folders that the operator allows.
        downloads: Where a hub's files go; what an earlier attempt left there is gone on with.

    Raises:
        SourceRefusedError: The folder, or a file in it, leads to where nothing may be registered from.
        ModelError: The hub does not have it, or cannot be reached.
    """
    if source.startswith(HUB):
        return _downloaded(source.removeprefix(HUB), downloads)
    path = Path(check_source(source, allowed).removeprefix(FOLDER))
    _refuse_escapes(path, allowed)
    return path


def public_name(source: str) -> str:
    """Return a source as every party may see it: a folder's own name, not where it lies here."""
    return source.removeprefix(HUB) if source.startswith(HUB) else Path(source.removeprefix(FOLDER)).name


def _is_below(path: Path, allowed: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder.resolve()) for folder in allowed)


def _refuse_escapes(folder: Path, allowed: Sequence[Path]) -> None:
    """Refuse a link from inside the folder to a file that the operator did not mean to hand out."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        target = path.resolve()
        if not _is_below(target, allowed):
            raise SourceRefusedError(
                f"source: {path.name[:100]!r} is a link to {str(target)[:200]!r}, "
                f"which lies below no folder that may be registered"
            )


def _downloaded(hub_id: str, folder: Path) -> Path:
    import huggingface_hub  # noqa: PLC0415 - slow to load, and needed here only

    name, _, revision = hub_id.partition("@")
    try:
        huggingface_hub.snapshot_download(
            name,
            revision=revision or None,
            local_dir=folder,
            allow_patterns=list(_WANTED),
            ignore_patterns=["*/*"],  # other formats of the same model lie in folders of their own
        )
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise ModelError(
            f"{hub_id} cannot be had from the hub: {said}; check id, revision and network"
        ) from error
    return folder
