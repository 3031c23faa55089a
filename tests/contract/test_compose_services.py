"""Every service of ``docker-compose.yml`` by its own command, and a job over all of them."""

import hashlib
import json
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from splitlearn.simulation.platform.control_plane import ControlPlane, wait_for
from splitlearn.simulation.tiny_models import build_tiny_model
from tests import services
from tests.contract.compose_file import ROOT
from tests.contract.composed_platform import REDIS, Agent, ComposedPlatform, composed_platform
from tests.contract.image_environment import (
    closure,
    control_plane_requirements,
    make_environment,
    worker_requirements,
)
from tests.contract.local_compose import LocalCompose
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
    with ExitStack() as stack:
        database_url = stack.enter_context(services.new_postgresql_database(postgresql_server))
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
def silos(composed: ComposedPlatform, admin: ControlPlane) -> Iterator[dict[str, Agent]]:
    """Silos with an agent each."""
    with ExitStack() as stack:
        agents = {}
        for silo in SILOS:
            rows = composed.folder / f"{silo}.jsonl"
            rows.write_text("".join(json.dumps({"text": f"ship {n} of {silo}"}) + "\n" for n in range(24)))
            agents[silo] = agent = Agent(silo, composed.folder, composed.trust)
            agent.command(
                "enroll",
                "-",
                standard_input=admin.call("POST", "/silos/invitations", {"name": silo})["invitation"],
            )
            agent.command("data", "add", "rows", str(rows))
            agent.start()
            stack.callback(agent.stop)
        yield agents


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
    return composed.start("worker")


@pytest.fixture(scope="module")
def completed_job(
    composed: ComposedPlatform, admin: ControlPlane, silos: dict[str, Agent], worker: LocalService
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
    @pytest.mark.parametrize(
        ("port", "metric"),
        [
            ("8470", "trunkline_rounds_committed_total"),
            ("8471", "trunkline_gateway_relayed_frames_total"),
            ("8472", "trunkline_worker_rounds_total"),
        ],
        ids=["api", "gateway", "worker"],
    )
    def test_prometheus_reads_each_programs_numbers_by_its_token_alone(
        self, composed: ComposedPlatform, port: str, metric: str
    ) -> None:
        here = [composed.replacements.table[port]]
        here += [own[port] for own in composed.own_replacements.values() if port in own]  # the other gateway
        token, samples = composed.values["TRUNKLINE_METRICS_TOKEN"], []
        for number in here:
            url = f"http://127.0.0.1:{number}/metrics"
            assert httpx2.get(url, timeout=20).status_code in {401, 403}
            answer = httpx2.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
            assert answer.status_code == 200, answer.text
            samples += [
                sample.value
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
                if sample.name == metric
            ]
        assert sum(samples) > 0  # a job was trained, by one gateway or the other

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


def script_of(section: str) -> str:
    """Return the commands that a section of the page gives."""
    page = (ROOT / "docs/operations.md").read_text()
    [script] = re.findall(
        rf"^## \d+\. {section}\n.*?^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE
    )
    return str(script)


@pytest.fixture(scope="module")
def restored(
    composed: ComposedPlatform,
    admin: ControlPlane,
    silos: dict[str, Agent],
    completed_job: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What was there before: then a backup, later changes, the loss of everything, and the restoration."""
    state, backup = composed.folder / "state", tmp_path_factory.mktemp("backup") / "today"
    compose = LocalCompose(composed, composed.database_url)
    before = {"what": everything(admin, completed_job["id"]), "root.key": (state / "root.key").read_bytes()}
    compose.run_script(script_of("Back up"), folder=composed.folder, variables={"BACKUP": str(backup)})
    admin.call("POST", "/users", {"name": "later", "role": "researcher"})
    epochs = epochs_of(admin)
    for agent in silos.values():  # their epochs grow beyond what the backup knows
        agent.stop()
        agent.start()
    wait_for(lambda: epochs_of(admin) >= epochs + len(silos) or None, timeout_seconds=60, what="the agents")
    for name in ("gateway", "api"):
        composed.service(name).stop()
    shutil.rmtree(state)
    state.mkdir(mode=0o700)
    (composed.folder / ".env").unlink()
    empty_database(composed.database_url)
    compose.run_script(script_of("Restore"), folder=composed.folder, variables={"BACKUP": str(backup)})
    return before


def everything(admin: ControlPlane, job: str) -> dict[str, Any]:
    """Users, root, the job, and its artifacts, as the API tells them."""
    users, federation = admin.call("GET", "/users"), admin.call("GET", "/federation")
    artifacts = admin.call("GET", f"/jobs/{job}/artifacts")
    shown = admin.call("GET", f"/jobs/{job}")
    numbers = admin.call("GET", f"/jobs/{job}/metrics", query={"limit": 1000})["items"]
    return {
        "users": [user["name"] for user in users["items"]],
        "root": federation["root_public_key"],
        "job": {name: shown[name] for name in ("id", "state", "spec")},
        "metrics": numbers,
        "artifacts": artifacts["items"],
    }


def epochs_of(admin: ControlPlane) -> int:
    """Return how often silos' agents have begun, all together."""
    return sum(silo["epoch"] for silo in admin.call("GET", "/silos")["items"])


def empty_database(url: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.mark.slow
class TestRestore:
    def test_users_root_jobs_and_numbers_are_there(
        self, restored: dict[str, Any], admin: ControlPlane, completed_job: dict[str, Any]
    ) -> None:
        assert everything(admin, completed_job["id"]) == restored["what"]

    def test_the_roots_key_is_the_same_and_for_its_owner_alone(
        self, restored: dict[str, Any], composed: ComposedPlatform
    ) -> None:
        root = composed.folder / "state/root.key"
        assert root.read_bytes() == restored["root.key"]
        assert stat.S_IMODE(root.stat().st_mode) == 0o600

    def test_artifacts_are_whole(self, restored: dict[str, Any], composed: ComposedPlatform) -> None:
        stored = [path for path in (composed.folder / "state/artifacts").rglob("*") if path.is_file()]
        digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in stored}
        wanted = {artifact["digest"] for artifact in restored["what"]["artifacts"]}
        assert wanted
        assert wanted <= digests

    def test_enrolled_agents_and_worker_sign_in_and_train(
        self, restored: dict[str, Any], admin: ControlPlane, silos: dict[str, Agent]
    ) -> None:
        north, *_ = silos.values()
        north.stop()
        north.start()  # the others' processes lived through it
        job = run_job(admin)
        assert job["id"] != restored["what"]["job"]["id"]
