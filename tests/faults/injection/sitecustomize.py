"""Faults inside a process of its own, by its environment; Python imports this module before any other.

FAULT_CLOCK_SECONDS=86400            the machine's date and time are wrong by so much
FAULT_FULL_DISK=<folder>:<flag>      while the flag file is there, nothing can be written in the folder
FAULT_HANG=<module>:<class>:<method>:<flag>
                                     while the flag file is there, this method does not come back
FAULT_RAISE=<module>:<class>:<method>:<flag>
                                     while the flag file is there, this method raises an OSError
"""

import datetime as dt
import errno
import importlib.abc
import importlib.machinery
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_MAKES = frozenset({"os.mkdir", "os.rename"})
_POLL_SECONDS = 0.05


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def shift_clock(seconds: float) -> None:
    """Let this process read another date; counters that are never set go on as they did."""
    real, shift = dt.datetime, dt.timedelta(seconds=seconds)
    real_time, real_ns = time.time, time.time_ns

    class Instances(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real)

    class Shifted(real, metaclass=Instances):  # type: ignore[misc,valid-type]  # a class that is found at run time
        def __new__(cls, *words: Any, **fields: Any) -> Any:
            return real(*words, **fields)

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return real.now(tz) + shift

    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    dt.datetime = Shifted  # type: ignore[misc]


def fill_disk(folder: str, flag: str) -> None:
    """Refuse what a full disk refuses below a folder, while the flag is there."""
    real_usage = shutil.disk_usage

    def is_full(path: object) -> bool:
        named = isinstance(path, str | Path) and os.path.abspath(path).startswith(folder)  # noqa: PTH100
        return named and os.path.exists(flag)  # noqa: PTH110 - as quick as it can be: every open passes here

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
        if (is_open or event in _MAKES) and is_full(arguments[0]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])

    def usage(path: Any) -> Any:
        found = real_usage(path)
        return _Usage(found.total, found.total, 0) if is_full(path) else found

    sys.addaudithook(refuse)
    shutil.disk_usage = usage


class _Patching(importlib.abc.MetaPathFinder):
    """Finds one module as the others do, and changes it once it is loaded."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name, self._change = name, change

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        loader, load = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._change(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def strike(method_of: str, fault: Callable[[str], None]) -> None:
    """Let a fault come before a method.

    Args:
        method_of: Module, class, method and flag file, with colons between.
        fault: Called with the flag file.
    """
    module, class_name, method, flag = method_of.split(":")

    def change(loaded: ModuleType) -> None:
        owner = getattr(loaded, class_name)
        works = getattr(owner, method)

        def struck(*words: Any, **fields: Any) -> Any:
            fault(flag)
            return works(*words, **fields)

        setattr(owner, method, struck)

    sys.meta_path.insert(0, _Patching(module, change))


def hang(flag: str) -> None:
    """Do not come back while the flag is there."""
    while os.path.exists(flag):  # noqa: PTH110 - see above
        threading.Event().wait(_POLL_SECONDS)


def fail(flag: str) -> None:
    """Raise while the flag is there."""
    if os.path.exists(flag):  # noqa: PTH110 - see above
        raise OSError(errno.EIO, os.strerror(errno.EIO), flag)


if "FAULT_CLOCK_SECONDS" in os.environ:  # noqa: TID251 - it stands in front of every entry point
    shift_clock(float(os.environ["FAULT_CLOCK_SECONDS"]))  # noqa: TID251
if "FAULT_FULL_DISK" in os.environ:  # noqa: TID251
    fill_disk(*os.environ["FAULT_FULL_DISK"].split(":"))  # noqa: TID251
if "FAULT_HANG" in os.environ:  # noqa: TID251
    strike(os.environ["FAULT_HANG"], hang)  # noqa: TID251
if "FAULT_RAISE" in os.environ:  # noqa: TID251
    strike(os.environ["FAULT_RAISE"], fail)  # noqa: TID251
