"""A ``docker`` for the scripts of operations.md, that acts on this machine's processes instead of containers.

It hands its arguments to the test over a socket. ``stop`` and ``up`` act on the test's services; ``exec`` and
``run`` are answered with a command that it becomes, so that the script's redirections work.
"""

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from tests.contract.composed_platform import ComposedPlatform

_CLIENT = f"""#!{sys.executable}
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(os.environ["LOCAL_COMPOSE"])
    with line.makefile("rw") as talk:
        print(json.dumps(sys.argv[1:]), file=talk, flush=True)
        answer = json.loads(talk.readline())
if "error" in answer:
    sys.exit(answer["error"])
if answer["become"]:
    os.execvpe(answer["become"][0], answer["become"], answer["environment"])
"""
_ORDER = ("redis", "migrations", "api", "gateway", "gateway-2")


class LocalCompose:
    """Understands the commands of ``docker compose`` that the page uses, and refuses any other.

    Args:
        platform: The services.
        database_url: What stands for the database ``trunkline`` of the service postgres.
    """

    def __init__(self, platform: ComposedPlatform, database_url: str) -> None:
        self._platform, self._url = platform, make_url(database_url)

    def run_script(self, script: str, *, folder: Path, variables: dict[str, str]) -> None:
        """Run a script of the page in a folder that stands for the repository's; it must succeed."""
        programs = folder / "bin"
        programs.mkdir(exist_ok=True)
        docker = programs / "docker"
        docker.write_text(_CLIENT)
        docker.chmod(0o700)
        with self._served(folder / "compose.socket") as address:
            done = subprocess.run(  # noqa: S603 - the page's own commands
                ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607 - wherever it lies
                check=False,
                capture_output=True,
                text=True,
                cwd=folder,
                env={"PATH": f"{programs}:{os.defpath}", "LOCAL_COMPOSE": str(address), **variables},
                timeout=240,
            )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def _served(self, path: Path) -> Iterator[Path]:
        answer = self._answer

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    said = answer(json.loads(self.rfile.readline()))
                except Exception as error:  # noqa: BLE001 - told to the script, which then fails
                    said = {"error": f"{type(error).__name__}: {error}"}
                self.wfile.write(json.dumps(said).encode() + b"\n")

        path.unlink(missing_ok=True)
        with socketserver.UnixStreamServer(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield path
            finally:
                server.shutdown()
                thread.join()

    def _answer(self, words: Sequence[str]) -> dict[str, Any]:
        match words:
            case ["compose", "stop", *names] if names:
                for name in names:
                    self._platform.service(name).stop()
            case ["compose", "up", "--detach", "--wait", *names]:
                for name in names or _ORDER:
                    self._start(name)
            case ["compose", "exec", "-T", "postgres", *command] if command:
                return self._in_postgres(command)
            case ["compose", "exec", "-T", "api", *command] if command:
                return self._in_api(command)
            case ["compose", "run", "--rm", "-T", "--no-deps", "api", *command] if command:
                return self._in_api(command)
            case _:
                raise ValueError(f"not understood here: docker {' '.join(words)}")
        return {"become": None}

    def _start(self, name: str) -> None:
        service = self._platform.service(name)
        if name == "migrations":
            assert service.run(timeout_seconds=120) == 0, service.said()
        elif name != "postgres" and not service.is_running:
            self._platform.start(name)

    def _in_postgres(self, command: Sequence[str]) -> dict[str, Any]:
        """The service's user and database are the test's own."""
        url = self._url
        own = {"PGHOST": url.host, "PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password}
        environment = {name: str(value) for name, value in own.items() if value is not None}
        words = [
            word.replace("trunkline", str(url.database)) for word in command if word != "--username=trunkline"
        ]
        return {"become": words, "environment": {"PATH": os.defpath, **environment}}

    def _in_api(self, command: Sequence[str]) -> dict[str, Any]:
        words, environment = self._platform.service("api").adapted(command)
        return {"become": words, "environment": environment}
