"""What is in the wheels, what they require, and that the agent's runs without a server's libraries."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.unit.packaging.conftest import metadata

SERVER_LIBRARIES = {"alembic", "celery", "fastapi", "psycopg", "redis", "sqlalchemy", "starlette", "uvicorn"}
BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVER_LIBRARIES | {"backend", "worker"}}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv.pop(1))
"""


def top_level(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    return {name for name in names if not name.endswith((".dist-info", ".data"))}


def requirements(wheel: Path) -> list[str]:
    return metadata(wheel).get_all("Requires-Dist", [])


@pytest.fixture(scope="session")
def unpacked(agent_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with ZipFile(agent_wheel) as archive:
        archive.extractall(folder)
    return folder


def run_unpacked(unpacked: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + program, str(unpacked), *arguments]
    return subprocess.run(  # noqa: S603 - our own program
        command, check=False, capture_output=True, text=True, timeout=60, cwd=unpacked
    )


class TestAgentWheel:
    def test_packs_the_agent_and_the_shared_library(self, agent_wheel: Path) -> None:
        assert top_level(agent_wheel) == {"client_agent", "splitlearn"}

    def test_has_no_build_files(self, agent_wheel: Path) -> None:
        with ZipFile(agent_wheel) as archive:
            strange = [name for name in archive.namelist() if not re.search(r"\.py$|/py\.typed$", name)]
        assert all(".dist-info/" in name for name in strange)

    def test_requires_no_server_library(self, agent_wheel: Path) -> None:
        required = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in requirements(agent_wheel)}
        assert not required & SERVER_LIBRARIES

    def test_carries_the_licence(self, agent_wheel: Path) -> None:
        with ZipFile(agent_wheel) as archive:
            [licence] = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
            assert b"Apache License" in archive.read(licence)

    def test_its_command_runs_where_server_libraries_are_absent(self, unpacked: Path) -> None:
        done = run_unpacked(unpacked, "from client_agent.cli import main; main()", "--help")
        assert (done.returncode, "data" in done.stdout) == (0, True), done.stderr

    def test_every_module_of_the_agent_imports_there(self, unpacked: Path) -> None:
        modules = [
            ".".join(path.relative_to(unpacked).with_suffix("").parts)
            for path in sorted((unpacked / "client_agent").rglob("*.py"))
        ]
        program = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
        done = run_unpacked(unpacked, program)
        assert done.returncode == 0, done.stderr

    def test_its_own_modules_are_the_unpacked_ones(self, unpacked: Path) -> None:
        done = run_unpacked(unpacked, "import client_agent.cli, splitlearn; print(splitlearn.__file__)")
        assert done.stdout.strip() == str(unpacked / "splitlearn/__init__.py"), done.stderr


class TestPlatformWheel:
    def test_packs_no_shared_library_tests_or_migrations_at_the_top(self, platform_wheel: Path) -> None:
        assert top_level(platform_wheel) <= {"backend", "worker"}

    def test_packs_the_migrations_inside_backend(self, platform_wheel: Path) -> None:
        with ZipFile(platform_wheel) as archive:
            assert "backend/migrations/env.py" in archive.namelist()

    def test_requires_the_agent_of_its_own_version(self, platform_wheel: Path) -> None:
        own = metadata(platform_wheel)["Version"]
        assert f"trunkline-agent=={own}" in requirements(platform_wheel)


class TestVersions:
    def test_of_both_distributions_are_one(self, agent_wheel: Path, platform_wheel: Path) -> None:
        assert metadata(agent_wheel)["Version"] == metadata(platform_wheel)["Version"]

    def test_of_the_installed_agent_is_the_wheels(self, agent_wheel: Path) -> None:
        assert version("trunkline-agent") == metadata(agent_wheel)["Version"]
