"""What this worker computes on: chosen once, and reported."""

import resource
import sys
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from splitlearn.control_plane.errors import SettingError
from splitlearn.control_plane.schemas import CapabilitiesBody, DeviceBody

AUTO = "auto"
_NAME_CHARACTERS = 128


def choose_device(word: str) -> torch.device:
    """Return the device of a setting; ``auto`` takes a CUDA device, Apple's, or the processor.

    Raises:
        SettingError: There is no such device here.
    """
    if word == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as error:
        raise SettingError(f"no device is called {word!r}; use auto, cpu, cuda, cuda:1 or mps") from error
    _refuse_missing(device, word)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def describe_device(device: torch.device) -> DeviceBody:
    """Return the device's name and memory as they are now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return DeviceBody(
            kind="cuda", name=name[:_NAME_CHARACTERS], total_memory_bytes=total, free_memory_bytes=free
        )
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        used = torch.mps.driver_allocated_memory()
        return DeviceBody(
            kind="mps", name="Apple GPU", total_memory_bytes=total, free_memory_bytes=max(0, total - used)
        )
    total, free = _main_memory()
    threads = torch.get_num_threads()
    return DeviceBody(
        kind="cpu", name=f"CPU, {threads} threads", total_memory_bytes=total, free_memory_bytes=free
    )


def describe_capabilities(
    device: torch.device, *, trunk_tokens_per_second: float | None = None
) -> CapabilitiesBody:
    """Return what this worker tells the control plane of itself."""
    return CapabilitiesBody(
        version=_version(),
        device=describe_device(device),
        precisions=("fp32",),
        trunk_tokens_per_second=trunk_tokens_per_second,
    )


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was in use on the device; on the processor, by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _refuse_missing(device: torch.device, word: str) -> None:
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise SettingError(f"device {word!r}: this machine has {count} CUDA devices; use auto or cpu")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError(f"device {word!r}: this machine has none; use auto or cpu")
    elif device.type not in {"cpu", "mps"}:
        raise SettingError(f"device {word!r} is not served; use auto, cpu, cuda, cuda:1 or mps")


def _main_memory() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _version() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:
        return "source"
