"""What this worker computes on: chosen once, and reported."""

import resource
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from splitlearn.control_plane.errors import SettingError
from splitlearn.control_plane.schemas import MAX_MODELS, CapabilitiesBody, DeviceBody, SpeedBody
from splitlearn.families import FAMILIES
from splitlearn.planning import MAX_DEVICES, DeviceMemory, Speed
from splitlearn.training import PRECISIONS, computes_in
from worker.speed import trunk_tokens_per_second

AUTO = "auto"
_SERVED = "auto, cpu, cuda, cuda:1, mps, or several with commas: cuda:0,cuda:1"
_NAME_CHARACTERS = 128


def choose_devices(word: str) -> tuple[torch.device, ...]:
    """Return the devices of a setting; ``auto`` takes a CUDA device, Apple's, or the processor.

    Args:
        word: One device, or several with commas, over which a large trunk is laid.

    Raises:
        SettingError: One is not here, is named twice, or they are too many.
    """
    words = [part.strip() for part in word.split(",")]
    devices = tuple(_choose(part) for part in words)
    twice = [part for part, device in zip(words, devices, strict=True) if devices.count(device) > 1]
    if twice:
        raise SettingError(f"device {word!r} names {twice[0]!r} twice; name each once")
    if len(devices) > MAX_DEVICES:
        raise SettingError(
            f"device {word!r} names {len(devices)} devices; a trunk is laid over {MAX_DEVICES} at most: "
            "run another worker for the others"
        )
    return devices


def _choose(word: str) -> torch.device:
    if word == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as error:
        raise SettingError(f"no device is called {word!r}; use {_SERVED}") from error
    _refuse_missing(device, word)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def describe_device(device: torch.device) -> DeviceBody:
    """Return the device's name and memory as they are now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return DeviceBody(
            id=str(device),
            kind="cuda",
            name=name[:_NAME_CHARACTERS],
            total_memory_bytes=total,
            free_memory_bytes=free,
        )
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        used = torch.mps.driver_allocated_memory()
        return DeviceBody(
            id=str(device),
            kind="mps",
            name="Apple GPU",
            total_memory_bytes=total,
            free_memory_bytes=max(0, total - used),
        )
    total, free = _main_memory()
    threads = torch.get_num_threads()
    return DeviceBody(
        id=str(device),
        kind="cpu",
        name=f"CPU, {threads} threads",
        total_memory_bytes=total,
        free_memory_bytes=free,
    )


def describe_capabilities(
    devices: Sequence[torch.device],
    *,
    speed: Speed | None = None,
    models: Sequence[str] = (),
) -> CapabilitiesBody:
    """Return what this worker tells the control plane of itself.

    Args:
        devices: All that a trunk may be laid over.
        speed: As measured on the first of them.
        models: Digests of the models whose layers lie here, the last used first.
    """
    described = tuple(describe_device(device) for device in devices)
    return CapabilitiesBody(
        version=_version(),
        device=described[0],
        devices=described,
        precisions=tuple(word for word in PRECISIONS if all(computes_in(word, device) for device in devices)),
        families=tuple(sorted(FAMILIES)),
        models=tuple(models[:MAX_MODELS]),
        trunk_tokens_per_second=None if speed is None else trunk_tokens_per_second(speed),
        speed=None if speed is None else SpeedBody.of(speed),
    )


def free_memory(devices: Sequence[torch.device]) -> list[DeviceMemory]:
    """Return what is free of devices now."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what torch keeps for itself is free for the next trunk
            break
    return [DeviceMemory(str(device), describe_device(device).free_memory_bytes) for device in devices]


def peak_memory_bytes(devices: Sequence[torch.device]) -> int:
    """Return the most memory that was in use on devices; on the processor, by this process."""
    return sum(_peak_of(device) for device in devices)


def _peak_of(device: torch.device) -> int:
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
        raise SettingError(f"device {word!r} is not served; use {_SERVED}")


def _main_memory() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _version() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:
        return "source"
