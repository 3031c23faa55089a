"""Every service of ``docker-compose.yml`` by its own command, and a job over all of them."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from splitlearn.simulation.platform.control_plane import ControlPlane, wait_for
from splitlearn.simulation.tiny_models import build_tiny_model
from tests import services
from tests.contract.composed_platform import REDIS, ComposedPlatform, composed_platform
from tests.contract.image_environment import (
    closure,
    control_plane_requirements,
    make_environment,
    worker_requirements,
)
from tests.contract.local_services import LocalService

JOB_SECONDS = 120.0
SILOS = ("north", "south")
COMPUTING = {"peft", "tokenizers", "torch", "transformers"}
SERVING = {"alembic", "fastapi", "starlette", "sqlalchemy", "uvicorn"}


class TestImages:
    def test_the_control_planes_has_no_torch(self) -> None:
        installed = closure(control_plane_requirements())
        assert installed >= SERVING
        assert not installed & COMPUTING

    def test_the_workers_has_no_server(self) -> None:
        installed = closure(worker_requirements())
        assert installed >= COMPUTING
        assert not installed & SERVING


@pytest.fixture(scope="module")
def programs(
    agent_wheel: Path, platform_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Commands of both images, each in an environment with what the image has and nothing else."""
    folder, wheels = tmp_path_factory.mktemp("images"), (agent_wheel, platform_wheel)
    return {
        "control-plane": make_environment(folder / "control-plane", control_plane_requirements(), wheels),
        "worker": make_environment(folder / "worker", worker_requirements(), wheels),
    }


@pytest.fixture(scope="module")
def composed(
    programs: dict[str, Path], postgresql_server: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComposedPlatform]:
    folder, models = tmp_path_factory.mktemp("composed"), tmp_path_factory.mktemp("models")
    texts = ["the sky is grey over the harbour"]
    build_tiny_model("tiny-llama", texts=texts, cache=models).rename(models / "tiny")
    with (
        ExitStack() as stack,
        services.new_postgresql_database(postgresql_server) as database_url,
    ):
        redis_url = stack.enter_context(services.emptied_redis()) if REDIS is None else ""
        yield stack.enter_context(
            composed_platform(
                folder, database_url=database_url, redis_url=redis_url, models=models, programs=programs
            )
        )


@pytest.fixture(scope="module")
def admin(composed: ComposedPlatform) -> Iterator[ControlPlane]:
    client = composed.first_admin()
    yield client
    client.close()


@pytest.fixture(scope="module")
def silos(composed: ComposedPlatform, admin: ControlPlane) -> Iterator[tuple[str, ...]]:
    """Silos with an agent each."""
    with ExitStack() as stack:
        for silo in SILOS:
            rows = composed.folder / f"{silo}.jsonl"
            rows.write_text("".join(json.dumps({"text": f"ship {n} of {silo}"}) + "\n" for n in range(24)))
            invitation = admin.call("POST", "/silos/invitations", {"name": silo})["invitation"]
            composed.start_agent(silo, invitation, rows, stack=stack)
        yield SILOS


def run_job(admin: ControlPlane) -> dict[str, Any]:
    silos = [{"name": silo, "dataset": "rows"} for silo in SILOS]
    spec = {
        "model": "tiny",
        "silos": silos,
        "task": {"kind": "causal-lm"},
        "rounds": 2,
        "steps_per_round": 2,
        "batch_size": 2,
        "max_tokens": 16,
        "evaluation": {"max_rows": 4},
    }
    job = admin.call("POST", "/jobs", {"spec": spec})

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = admin.call("GET", f"/jobs/{job['id']}")
        return found if found["state"] in {"completed", "failed", "cancelled"} else None

    found: dict[str, Any] = wait_for(ended, timeout_seconds=JOB_SECONDS, what="the job's end")
    assert found["state"] == "completed", found["reason"]
    return found


@pytest.fixture(scope="module")
def worker(composed: ComposedPlatform, admin: ControlPlane) -> LocalService:
    invitation = admin.call("POST", "/workers/invitations", {"name": "gpu-1"})["invitation"]
    composed.values["TRUNKLINE_WORKER_INVITATION"] = invitation  # as written into .env
    service = composed.service("worker")
    service.start()
    wait_for(lambda: "worker_ready" in service.said() or None, timeout_seconds=90, what="the worker")
    return service


@pytest.fixture(scope="module")
def completed_job(
    composed: ComposedPlatform, admin: ControlPlane, silos: tuple[str, ...], worker: LocalService
) -> dict[str, Any]:
    source = f"folder:{composed.replacements.table['/models']}/tiny"
    admin.call("POST", "/models", {"name": "tiny", "source": source})

    def ready() -> bool | None:
        announced = {item["silo"] for item in admin.call("GET", "/datasets")["items"]}
        imported = admin.call("GET", "/models/tiny")["state"] == "ready"
        return True if imported and announced == set(silos) else None

    wait_for(ready, timeout_seconds=60, what="model and data sets")
    job = run_job(admin)
    assert worker.is_running
    return job


@pytest.mark.slow
class TestServices:
    def test_control_plane_runs_where_torch_is_not_installed(self, composed: ComposedPlatform) -> None:
        done = subprocess.run(  # noqa: S603 - ours
            [str(composed.control_plane_programs / "python"), "-c", "import torch"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert "No module named 'torch'" in done.stderr

    def test_no_secret_is_on_a_command_line(self, composed: ComposedPlatform) -> None:
        secrets = [value for name, value in composed.values.items() if name.endswith(("PASSWORD", "TOKEN"))]
        for service in composed.running.values():
            path = Path(f"/proc/{service.pid}/cmdline")
            words = path.read_text() if path.exists() else ""
            assert not [secret for secret in secrets if secret in words], service.service.name

    def test_a_job_runs_to_its_end(self, completed_job: dict[str, Any]) -> None:
        assert completed_job["state"] == "completed"

    @pytest.mark.usefixtures("completed_job")
    def test_nothing_fell_back_to_a_file(self, composed: ComposedPlatform) -> None:
        state = composed.folder / "state"
        assert sorted(path.name for path in state.iterdir()) == ["artifacts", "root.key"]

    def test_an_unhealthy_service_is_noticed(self, composed: ComposedPlatform) -> None:
        gateway = composed.service("gateway")
        assert gateway.is_healthy()
        assert gateway.stop() == 0
        assert not gateway.is_healthy()
        composed.start("gateway")
