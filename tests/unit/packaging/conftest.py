"""The two wheels, built once from a copy of the tree: a build leaves folders behind."""

import shutil
import subprocess
import sys
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[3]
PARTS = ("backend", "client_agent", "migrations", "splitlearn", "tests/unit/packaging", "worker")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")


def build(project: Path, wheels: Path) -> Path:
    """Build one wheel as pip does, with the build backend that is installed."""
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(wheels), str(project)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)  # noqa: S603 - pip
    assert done.returncode == 0, done.stderr
    [wheel] = wheels.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what a fresh clone has of the packages, and a folder of tests that must not be packed."""
    tree = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
            shutil.copytree(ROOT / part, tree / part, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copyfile(ROOT / name, tree / name)
    (tree / "tests/__init__.py").touch()
    return tree


@pytest.fixture(scope="session")
def agent_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree / "client_agent", tmp_path_factory.mktemp("agent_wheel"))


@pytest.fixture(scope="session")
def platform_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, tmp_path_factory.mktemp("platform_wheel"))


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))
