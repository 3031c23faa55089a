"""``trunkline worker --rotate-key``."""

import asyncio
from pathlib import Path

import structlog

from splitlearn.control_plane.rotation import rotate_key
from splitlearn.control_plane.state_folder import StateFolder

_log = structlog.get_logger("worker")


def rotate(state_dir: Path) -> None:
    """Take a new key, beside a worker that may run; wait for a person with the offline root if need be.

    Raises:
        TrunklineError: The control plane refuses, or the folder holds no enrolled worker.
    """
    certificate = asyncio.run(rotate_key(StateFolder(state_dir), wait=True))
    _log.info("key_rotated", worker=certificate.name, until=certificate.not_after.isoformat())
