"""The largest memory that another process has had, as Linux tells it."""

from pathlib import Path


def peak_memory_of(pid: int) -> int | None:
    """Return a running process's largest resident memory in bytes; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None
