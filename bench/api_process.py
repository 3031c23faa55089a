"""The API as a process of a benchmark."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import psutil
from pydantic import SecretStr

from backend.settings import Settings
from bench.tables import say
from splitlearn.errors import TrunklineError
from splitlearn.processes import Child, Program, free_port

_READY_SECONDS = 180.0
_STOP_SECONDS = 60.0
KEPT_FOR_EVER = {f"TRUNKLINE_{kind}_DAYS": "0" for kind in ("METRIC_WHOLE", "METRIC", "LOG", "EVENT")}
"""What retention would remove while something else is measured stays."""


def make_settings(folder: Path, database_url: str) -> Settings:
    """Return the settings of a control plane in a folder, at a free port."""
    return Settings(state_dir=folder / "state", database_url=SecretStr(database_url), port=free_port())


@contextlib.contextmanager
def api_process(
    settings: Settings,
    folder: Path,
    *,
    words: tuple[str, ...] = ("-m", "backend.cli", "api"),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Start the API, wait until it is ready, and end it on leaving.

    Args:
        settings: Which database, state folder and port.
        folder: Gets its log.
        words: Arguments of the interpreter.
        environment: What it is told besides.

    Raises:
        ChildDiedError: It ended or is late; with the end of its log.
    """
    inherited = os.environ  # noqa: TID251 - what processes need of this machine
    own = {name: value for name, value in inherited.items() if not name.startswith("TRUNKLINE_")}
    own |= {
        "TRUNKLINE_STATE_DIR": str(settings.state_dir),
        "TRUNKLINE_DATABASE_URL": settings.resolved_database_url,
        "TRUNKLINE_PORT": str(settings.port),
        "TRUNKLINE_LOG_FORMAT": "json",
        **(environment or {}),
    }
    child = Child(Program("api", words, own, stop_seconds=_STOP_SECONDS), log_folder=folder)
    child.start()
    try:
        child.wait_until(lambda: _is_ready(settings.audience), timeout_seconds=_READY_SECONDS)
        yield child
    except TrunklineError:
        say(f"the API said last: {child.last_words()}")
        raise
    finally:
        child.stop()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, and of those that it has started."""
    total = 0.0
    own = psutil.Process(pid)
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200  # noqa: PLR2004 - ready
    except httpx2.TransportError:
        return False
