"""Environments that put a fault into a process: see ``injection/sitecustomize.py``."""

from pathlib import Path

DAY = 86400


def _injected(**faults: str) -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parent / "injection"), **faults}


def clock_wrong_by(seconds: float) -> dict[str, str]:
    """The machine's date and time are wrong."""
    return _injected(FAULT_CLOCK_SECONDS=str(seconds))


def full_disk(folder: Path, flag: Path) -> dict[str, str]:
    """Nothing can be written in a folder while the flag file is there."""
    return _injected(FAULT_FULL_DISK=f"{folder}:{flag}")


def hanging(module: str, class_name: str, method: str, flag: Path) -> dict[str, str]:
    """A method does not come back while the flag file is there."""
    return _injected(FAULT_HANG=f"{module}:{class_name}:{method}:{flag}")


def raising(module: str, class_name: str, method: str, flag: Path) -> dict[str, str]:
    """A method raises while the flag file is there."""
    return _injected(FAULT_RAISE=f"{module}:{class_name}:{method}:{flag}")
