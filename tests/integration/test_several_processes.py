"""Two API processes and two gateways on PostgreSQL and Redis: one of each is killed, the job is the same."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
import torch
from sqlalchemy import create_engine, text

from splitlearn.errors import LinkError
from splitlearn.parties import Progress, StepDone
from splitlearn.processes import Child, Program, free_port
from splitlearn.simulation.demo_inputs import plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.results import SimulationResult

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=2,
    silo_blocks="local",
    rounds=8,
    steps_per_round=10,
    batch_size=2,
    max_tokens=48,
    evaluation_rows=6,
    centralised=False,
)
_READY_SECONDS = 60.0
_PATIENCE_SECONDS = 60.0


class Balancer:
    """What stands before several API processes in production: hands a connection to one that takes it."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self.port, self._ports, self._next = free_port(), ports, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            found = await self._connect()
            if found is None:
                return
            to_reader, to_writer = found
            with contextlib.closing(to_writer):
                await asyncio.wait(
                    {
                        asyncio.create_task(_copy(reader, to_writer)),
                        asyncio.create_task(_copy(to_reader, writer)),
                    },
                    return_when=asyncio.FIRST_COMPLETED,
                )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._ports:
            self._next += 1
            port = self._ports[self._next % len(self._ports)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(1 << 16):
            target.write(chunk)
            await target.drain()


class PatientControlPlane(ControlPlane):
    """Asks again when the process that it asked was killed: a person's page would do so too."""

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return super()._ask(method, path, **arguments)
            except LinkError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


class Platform:
    """A federation whose control plane and gateway are two processes each.

    The first API is the one of ``trunkline up``, which starts it again when it is killed. Both gateways that
    conversations are given are the test's own: nobody starts those again.
    """

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder, self.database_url = folder, database_url
        self.api_ports = (free_port(), free_port())
        self.gateway_ports = (free_port(), free_port())
        self.gateway_urls = [f"ws://127.0.0.1:{port}/relay" for port in self.gateway_ports]
        self.balancer = Balancer(self.api_ports)
        self.url = f"http://127.0.0.1:{self.balancer.port}"
        self.children: dict[str, Child] = {}
        self.killed: list[str] = []
        self.dead_gateway = ""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}  # noqa: TID251
        self.environment = {
            **inherited,
            "TRUNKLINE_DATABASE_URL": database_url,
            "TRUNKLINE_BROKER_URL": redis_url,
            "TRUNKLINE_PUBLIC_URL": self.url,
            "TRUNKLINE_GATEWAY_URL": ",".join(self.gateway_urls),
            "TRUNKLINE_GATEWAY_SILENCE_SECONDS": "3",
        }
        inputs, rows = self.prepared = _prepared(folder)
        self.federation = PlatformFederation(
            inputs.spec,
            model_folder=inputs.model_folder,
            data=inputs.data,
            rows=rows.by_silo,
            work_dir=folder / "platform",
            threads=1,
            environment=self.environment,
            on_progress=self.look,
        )
        deployment = self.federation.deployment
        deployment.remember(port=self.api_ports[0])
        self._start_up: Callable[[], ControlPlane] = deployment.start_platform
        deployment.start_platform = self.start  # type: ignore[method-assign]  # more is started than it knows

    def start(self) -> ControlPlane:
        self._start_up().close()
        deployment = self.federation.deployment
        api = _environment_of(deployment.part_pid("api"))
        self._child("api-2", ("-m", "backend.cli", "api"), {**api, "TRUNKLINE_PORT": str(self.api_ports[1])})
        gateway = _environment_of(deployment.part_pid("gateway"))
        for number, port in enumerate(self.gateway_ports):
            own = {
                "TRUNKLINE_GATEWAY_PORT": str(port),
                "TRUNKLINE_GATEWAY_OWN_URL": self.gateway_urls[number],
                "TRUNKLINE_GATEWAY_STANDINGS_URL": f"{self.url}/api/v1/standings",
            }
            self._child(f"gateway-{number + 1}", ("-m", "backend.gateway"), {**gateway, **own})
        for name, port in (
            ("api-2", self.api_ports[1]),
            *zip(("gateway-1", "gateway-2"), self.gateway_ports, strict=True),
        ):
            is_there = partial(_answers, f"http://127.0.0.1:{port}/healthz")
            self.children[name].wait_until(is_there, timeout_seconds=_READY_SECONDS)
        control_plane = PatientControlPlane(self.url)
        control_plane.sign_in(deployment.saved.admin, deployment.saved.password)
        return control_plane

    def look(self, progress: Progress) -> None:
        """Kill the API that reconciles in round 2, and a gateway that is in use in round 4."""
        if isinstance(progress, StepDone) and progress.round == 2 and "api" not in self.killed:
            self._kill("api", self.federation.deployment.part_pid("api"))
        if isinstance(progress, StepDone) and progress.round == 4 and "gateway" not in self.killed:
            self.dead_gateway = min(self.meetings().values())
            name = f"gateway-{self.gateway_urls.index(self.dead_gateway) + 1}"
            self._kill("gateway", self.children[name].pid)

    def meetings(self) -> Mapping[str, str]:
        """Where each silo meets the worker."""
        engine = create_engine(self.database_url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            query = text("SELECT silo_id, gateway_url FROM meetings")
            found = {str(silo): str(url) for silo, url in connection.execute(query).all()}
        engine.dispose()
        return found

    def log_of(self, name: str) -> str:
        return self.children[name].log_path.read_text()

    def stop(self) -> None:
        self.federation.close()
        for child in self.children.values():
            child.stop()

    def _child(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.children[name] = Child(Program(name, arguments, environment), log_folder=self.folder / "logs")
        self.children[name].start()

    def _kill(self, what: str, pid: int) -> None:
        self.killed.append(what)
        os.kill(pid, signal.SIGKILL)


def _prepared(folder: Path) -> tuple[Any, Any]:
    spec = plan_job(OPTIONS)
    rows = read_rows(OPTIONS, spec)
    return prepare_inputs(OPTIONS, rows, folder=None, models=folder / "models"), rows


def _environment_of(pid: int) -> dict[str, str]:
    """The secrets of a start are known to its processes alone."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).is_success
    except httpx2.HTTPError:
        return False


def _losses(result: SimulationResult) -> list[list[float]]:
    return [[step.loss for step in silo.steps] for silo in result.silos]


@pytest.fixture
def platform(tmp_path: Path, empty_postgresql_url: str, redis_url: str) -> Iterator[Platform]:
    platform = Platform(tmp_path, empty_postgresql_url, redis_url)
    with platform.balancer:
        try:
            yield platform
        finally:
            platform.stop()


@pytest.fixture
def undisturbed(platform: Platform, tmp_path: Path) -> SimulationResult:
    """The same job over memory links, in this process."""
    inputs, _ = platform.prepared
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return simulate(
            inputs.spec, model_folder=inputs.model_folder, data=inputs.data, work_dir=tmp_path / "in-process"
        )
    finally:
        torch.set_num_threads(threads)


class TestSeveralProcesses:
    def test_killed_ones_are_replaced_by_the_others(
        self, platform: Platform, undisturbed: SimulationResult
    ) -> None:
        result = platform.federation.run()
        assert platform.killed == ["api", "gateway"]
        assert _losses(result) == _losses(undisturbed)
        assert result.eval_loss == undisturbed.eval_loss
        assert "turn_taken" in platform.log_of("api-2")
        [alive] = set(platform.meetings().values())
        assert alive in platform.gateway_urls
        assert alive != platform.dead_gateway
