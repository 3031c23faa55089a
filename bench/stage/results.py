"""What a completed job left, to be compared bit for bit."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitlearn.simulation.platform.control_plane import ControlPlane

_PAGE = 1000
_LOSSES = frozenset({"loss", "eval_loss"})


@dataclass(frozen=True, slots=True)
class Finished:
    """What a completed job left, ready to be compared bit for bit.

    Attributes:
        adapters: By silo, SHA-256 over the names and bytes of its result's safetensors files.
        trunk: Digest of the trunk's result in the artifact store.
        losses: By silo, of every step, and of every evaluation, in order.
    """

    adapters: Mapping[str, str]
    trunk: str
    losses: Mapping[str, Sequence[tuple[str, int, int, float]]]


def read_finished(control_plane: ControlPlane, job: str, folders: Mapping[str, Path]) -> Finished:
    """Read what a completed job left.

    Args:
        control_plane: Asked for the trunk's result and the losses.
        job: Its id.
        folders: By silo, where its agent keeps the result.
    """
    items = control_plane.call("GET", f"/jobs/{job}/artifacts")["items"]
    [trunk] = [item["digest"] for item in items if item["kind"] == "result"]
    adapters = {silo: _digest(folder) for silo, folder in folders.items()}
    return Finished(adapters, trunk, _losses(control_plane, job))


def read_numbers(control_plane: ControlPlane, job: str) -> Iterator[dict[str, Any]]:
    """Yield every number that parties have reported of a job."""
    after: str | None = None
    while True:
        query = {"limit": _PAGE, **({"after": after} if after else {})}
        page = control_plane.call("GET", f"/jobs/{job}/metrics", query=query)
        yield from page["items"]
        after = page["next"]
        if len(page["items"]) < _PAGE:
            return


def _losses(control_plane: ControlPlane, job: str) -> dict[str, list[tuple[str, int, int, float]]]:
    found: dict[str, list[tuple[str, int, int, float]]] = {}
    for item in read_numbers(control_plane, job):
        if item["name"] in _LOSSES:
            row = (str(item["name"]), int(item["round"]), int(item["step"]), float(item["value"]))
            found.setdefault(str(item["party"]), []).append(row)
    return {party: sorted(rows) for party, rows in sorted(found.items())}


def _digest(folder: Path) -> str:
    """Return SHA-256 over the names and bytes of a folder's tensors."""
    digest = hashlib.sha256()
    paths = sorted(folder.rglob("*.safetensors"))
    assert paths, f"no tensors in {folder}"
    for path in paths:
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
