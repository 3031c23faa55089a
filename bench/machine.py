"""On what a benchmark ran."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "transformers", "peft", "numpy", "cryptography", "websockets")


def describe_machine(
    *, threads: int, environments: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, Any]:
    """Return cores, threads, processor and versions, ready for JSON.

    Args:
        threads: Torch's threads in each process.
        environments: What each kind of process was told about waiting threads.
    """
    return {
        "cores": usable_cores(),
        "threads": threads,
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        },
        "environments": {kind: dict(told) for kind, told in (environments or {}).items()},
    }


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stay_on_cores(number: int) -> None:
    """Keep this process, and those that it starts, on the first cores that it may use (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
