"""The whole platform, every part its own process, whole and with parts killed in mid-round."""

import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file

from splitlearn.parties import Progress, RoundFinished, ignore_progress
from splitlearn.simulation.demo_inputs import Inputs, Rows, plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.federation import simulate
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.results import SimulationResult

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=2,
    silo_blocks="local",
    rounds=4,
    steps_per_round=10,
    batch_size=2,
    max_tokens=48,
    evaluation_rows=6,
    centralised=False,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, Rows]:
    spec = plan_job(OPTIONS)
    rows = read_rows(OPTIONS, spec)
    models = tmp_path_factory.mktemp("models")
    return prepare_inputs(OPTIONS, rows, folder=None, models=models), rows


@pytest.fixture(scope="module")
def in_process(
    prepared: tuple[Inputs, Rows], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimulationResult]:
    """The same job over memory links, in this process: what the platform's numbers must be."""
    inputs, _ = prepared
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield simulate(
        inputs.spec,
        model_folder=inputs.model_folder,
        data=inputs.data,
        work_dir=tmp_path_factory.mktemp("in-process"),
    )
    torch.set_num_threads(threads)


class Killer:
    """Kills an agent's job process after round 1, and the worker after round 2; each once, in mid-round."""

    def __init__(self, silo: str) -> None:
        self._silo = silo
        self.federation: PlatformFederation | None = None
        self.killed: list[str] = []

    def __call__(self, progress: Progress) -> None:
        if not isinstance(progress, RoundFinished):
            return
        if progress.round == 1 and "agent" not in self.killed:
            [forker] = _children(self._deployment.agent_pid(self._silo))
            self._kill("agent", _children(forker))
        if progress.round == 2 and "worker" not in self.killed:
            self._kill("worker", [self._deployment.part_pid("worker-1")])

    @property
    def _deployment(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a test's own look inside
        assert self.federation is not None
        return self.federation._deployment

    def _kill(self, what: str, pids: list[int]) -> None:
        self.killed.append(what)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(folder.name))
    return found


@pytest.fixture(params=[pytest.param("SQLite and a folder", marks=pytest.mark.long), "PostgreSQL and Redis"])
def services(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings that name the database and the broker."""
    if request.param.startswith("SQLite"):
        return {}
    return {
        "TRUNKLINE_DATABASE_URL": request.getfixturevalue("empty_postgresql_url"),
        "TRUNKLINE_BROKER_URL": request.getfixturevalue("redis_url"),
    }


def _federation(
    prepared: tuple[Inputs, Rows],
    folder: Path,
    killer: Killer | None,
    services: Mapping[str, str] = MappingProxyType({}),
    *,
    keeps_running: bool = False,
) -> PlatformFederation:
    inputs, rows = prepared
    return PlatformFederation(
        inputs.spec,
        model_folder=inputs.model_folder,
        data=inputs.data,
        rows=rows.by_silo,
        work_dir=folder,
        threads=1,
        environment={**_environment(), **services},
        keeps_running=keeps_running,
        on_progress=killer or ignore_progress,
    )


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}  # noqa: TID251


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def _assert_same(ours: SimulationResult, theirs: SimulationResult) -> None:
    assert ours.eval_loss == theirs.eval_loss
    for mine, other in zip(ours.silos, theirs.silos, strict=True):
        assert [step.loss for step in mine.steps] == [step.loss for step in other.steps]
        assert [replace(found) for found in mine.evaluations] == list(other.evaluations)
        assert mine.artifact is not None
        assert other.artifact is not None
        trained, reference = _tensors(mine.artifact), _tensors(other.artifact)
        assert trained.keys() == reference.keys()
        assert all(torch.equal(trained[name], reference[name]) for name in trained)


def _assert_one_id_through_all_logs(folder: Path, silo: str) -> None:
    """The id of the request that submitted the job stands in the log of every part that worked on it."""
    logs = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.log")}
    submitted = [line for line in logs["platform/logs/api.log"].splitlines() if "job_submitted" in line]
    [found] = {re.findall(r"correlation_id=([A-Za-z0-9_-]{8,64})", line)[0] for line in submitted}
    parts = {
        "api": "platform/logs/api.log",
        "gateway": "platform/logs/gateway.log",
        "worker": "platform/logs/worker-1.log",
        "agent": f"silos/{silo}/agent/",
    }
    for part, place in parts.items():
        lines = [line for path, text in logs.items() if path.startswith(place) for line in text.splitlines()]
        assert [line for line in lines if found in line], f"{part} says nothing of {found}: {lines[-20:]}"


class TestPlatform:
    def test_killed_parts_cost_nothing_but_time(
        self,
        prepared: tuple[Inputs, Rows],
        in_process: SimulationResult,
        services: Mapping[str, str],
        tmp_path: Path,
    ) -> None:
        killer = Killer(prepared[0].spec.silos[0].name)
        federation = killer.federation = _federation(prepared, tmp_path, killer, services)
        result = federation.run()
        assert killer.killed == ["agent", "worker"]
        _assert_same(result, in_process)
        _assert_one_id_through_all_logs(tmp_path, prepared[0].spec.silos[0].name)
        if services:
            assert not list(tmp_path.rglob("trunkline.db"))
            assert not list(tmp_path.rglob("broker/messages"))
        assert not [pid for pid in Path("/proc").glob("[0-9]*") if str(tmp_path) in _command_line(pid)]

    def test_an_interrupted_run_goes_on(
        self, prepared: tuple[Inputs, Rows], in_process: SimulationResult, tmp_path: Path
    ) -> None:
        inputs, _ = prepared
        first = _federation(prepared, tmp_path, None)
        first._forward = lambda progress: first.cancel() if isinstance(progress, RoundFinished) else None
        with pytest.raises(KeyboardInterrupt):
            first.run()
        second = _federation(prepared, tmp_path, None)
        assert 1 <= second.find_last_round() < inputs.spec.rounds
        _assert_same(second.run(resume=True), in_process)


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
