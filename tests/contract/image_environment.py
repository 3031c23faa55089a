"""Environments of Python with exactly what an image installs, made of what is installed here: no network."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.contract.compose_file import ROOT


def control_plane_requirements() -> list[str]:
    """Return what the control plane's image installs, as its own build finds it."""
    script = ROOT / "docker/control_plane_requirements.py"
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return done.stdout.split("\n")[:-1]


def worker_requirements() -> list[str]:
    """Return what the worker's image installs: ``trunkline-agent`` and the extra ``worker``."""
    platform, agent = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for folder in (ROOT, ROOT / "client_agent")
    )
    return [*agent["dependencies"], *platform["optional-dependencies"]["worker"]]


def closure(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that the requirements bring, by the metadata of those installed here."""
    todo = [Requirement(line) for line in requirements]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        for extra in {"", *wanted.extras}:
            key = (_canonical(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for line in distribution(wanted.name).requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in seen}


def make_environment(folder: Path, requirements: Iterable[str], wheels: Sequence[Path]) -> Path:
    """Make a virtual environment that has the requirements and our wheels, and return its ``bin``."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for name in closure(requirements):
        _link(name, packages)
    interpreter = folder / "bin/python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(interpreter),
        "install",
        *options,
        *map(str, wheels),
    ]
    subprocess.run(command, check=True, timeout=120)  # noqa: S603 - pip
    return folder / "bin"


def _link(name: str, packages: Path) -> None:
    for file in distribution(name).files or []:
        if ".." in file.parts:  # scripts: nothing here calls them
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.symlink(file.locate(), target)  # noqa: PTH211 - a link to what may itself be one


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
