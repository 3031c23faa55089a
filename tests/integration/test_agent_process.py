"""The agent as its owner runs it, with a gateway of its own process and the trunk's side in the test."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from splitlearn.control_plane.schemas import DesiredState
from splitlearn.planning import ModelFolder
from splitlearn.simulation import simulate
from splitlearn.simulation.tiny_models import TinySize, build_tiny_model
from splitlearn.spec import JobSpec
from splitlearn.tasks import load_silo_data, load_tokenizer
from tests.integration.conftest import assert_same
from tests.integration.fake_control_plane import FakeControlPlane, FakeJob, serving
from tests.integration.test_gateway import gateway_process
from tests.integration.trunk_side import Gate, TrunkSide

SIZE = TinySize(dim=32, mlp_dim=48, num_layers=4, num_heads=2, vocab_size=320, max_positions=64)
ROWS = [{"text": f"note {number}: the patient of bed {number * 7 % 13} slept well"} for number in range(30)]
END_SECONDS = 60.0
GONE_SECONDS = 5.0
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [row["text"] for row in ROWS]
    return build_tiny_model("tiny-llama", texts=texts, cache=tmp_path_factory.mktemp("model"), size=SIZE)


@pytest.fixture(scope="module")
def gateway_url() -> Iterator[str]:
    with gateway_process() as gateway:
        yield gateway.url


@pytest.fixture
def control_plane(gateway_url: str) -> Iterator[FakeControlPlane]:
    control_plane = FakeControlPlane(gateway_url)
    with serving(control_plane):
        yield control_plane


class Agent:
    """One silo's agent, in a state folder of its own."""

    def __init__(self, silo: str, folder: Path) -> None:
        self.silo, self.state_dir = silo, folder / silo
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *words: str, standard_input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "client_agent", *words],
            check=False,
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=END_SECONDS,
            env=self._environment,
        )

    def join(self, control_plane: FakeControlPlane) -> None:
        done = self.command("enroll", "-", standard_input=control_plane.invite(self.silo))
        assert done.returncode == 0, done.stderr

    def add(self, rows: list[dict[str, Any]], *options: str) -> Path:
        path = self.state_dir.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = self.command("data", "add", "notes", str(path), *options)
        assert done.returncode == 0, done.stderr
        return path

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client_agent", "run", "--threads", "1"],
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )

    def end(self, signum: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(END_SECONDS)

    def job_pid(self) -> int:
        """The newest process of a job, as the supervisor's log has it."""
        log = (self.state_dir / "logs/agent.log").read_text()
        return int(re.findall(r": process (\d+)$", log, re.MULTILINE)[-1])

    def status(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return content

    @property
    def _environment(self) -> dict[str, str]:
        inherited = {"PATH": os.environ["PATH"], "HOME": str(self.state_dir.parent)}  # noqa: TID251 - a child's
        return {**inherited, "TRUNKLINE_AGENT_STATE_DIR": str(self.state_dir)}


NewAgent = Callable[..., Agent]


@pytest.fixture
def new_agent(tmp_path: Path, control_plane: FakeControlPlane) -> Iterator[NewAgent]:
    agents: list[Agent] = []

    def make(silo: str, *, rows: list[dict[str, Any]] = ROWS) -> Agent:
        agent = Agent(silo, tmp_path)
        agents.append(agent)
        agent.join(control_plane)
        agent.add(rows)
        return agent

    yield make
    for agent in agents:
        if agent.process is not None and agent.process.poll() is None:
            agent.end(signal.SIGKILL)


def job_spec(model: str, *silos: str, **fields: Any) -> JobSpec:
    base = {
        "model": model,
        "silos": [{"name": name, "dataset": "notes"} for name in silos],
        "silo_blocks": "local",
        "adapter": {"kind": "lora", "r": 4, "alpha": 8.0},
        "batch_size": 2,
        "max_tokens": 24,
        "rounds": 3,
        "steps_per_round": 3,
        "seed": 5,
        "evaluation": {"batch_size": 2, "max_rows": 4},
        "patience_seconds": 60,
    }
    return JobSpec.parse({**base, **fields})


@dataclass
class Federation:
    """Everything that a job runs between."""

    control_plane: FakeControlPlane
    new_agent: NewAgent
    model: Path
    work_dir: Path
    stack: ExitStack

    def submit(self, *silos: str, **fields: Any) -> FakeJob:
        reference = self.control_plane.register(ModelFolder.open(self.model))
        return self.control_plane.submit(job_spec(reference, *silos, **fields))

    def started_agent(self, silo: str, **how: Any) -> Agent:
        agent = self.new_agent(silo, **how)
        agent.start()
        return agent

    def await_approval(self, job: FakeJob) -> None:
        self.control_plane.wait_until(lambda: len(job.approvals) == len(job.spec.silos))
        assert {word for word, _, _ in job.approvals.values()} == {"approved"}

    def host(self, job: FakeJob, *, gate: Gate | None = None) -> None:
        side = TrunkSide(
            self.control_plane,
            job,
            folder=ModelFolder.open(self.model),
            work_dir=self.work_dir / "worker",
            gate=gate,
        )
        self.stack.callback(side.stop)
        side.start()

    def held_job(self, *silos: str) -> tuple[FakeJob, Gate]:
        """Return a job that stands in the middle of its second round."""
        job, gate = self.submit(*silos), Gate(step=4)
        self.await_approval(job)
        self.host(job, gate=gate)
        assert gate.reached.wait(END_SECONDS)
        return job, gate


@pytest.fixture
def federation(
    control_plane: FakeControlPlane, new_agent: NewAgent, model: Path, tmp_path: Path
) -> Iterator[Federation]:
    with ExitStack() as stack:
        yield Federation(control_plane, new_agent, model, tmp_path, stack)


def simulated(spec: JobSpec, model: Path, files: dict[str, Path], work_dir: Path) -> Path:
    """Run the same job in this process; return the folder of the silos' results."""
    data = [
        load_silo_data(
            path,
            silo_name=name,
            task=spec.task,
            tokenizer=load_tokenizer(model),
            seed=spec.seed,
            max_tokens=spec.max_tokens,
            holdout=spec.evaluation.holdout,
        )
        for name, path in files.items()
    ]
    simulate(spec, model_folder=model, data=data, work_dir=work_dir)
    return work_dir / "silos"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def assert_results_as_simulated(federation: Federation, job: FakeJob, *agents: Agent) -> None:
    files = {agent.silo: agent.state_dir.with_suffix(".jsonl") for agent in agents}
    expected = simulated(job.spec, federation.model, files, federation.work_dir / "simulated")
    for agent in agents:
        target = federation.work_dir / f"export-{agent.silo}"
        done = agent.command("export", job.id[:8], str(target))
        assert done.returncode == 0, done.stderr
        ours = load_file(target / ADAPTER)
        assert_same(ours, load_file(expected / agent.silo / "result" / ADAPTER))


class TestJob:
    def test_survives_kill_9_of_a_silos_process_bit_for_bit(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        south = federation.started_agent("south", rows=ROWS[::-1][:20])
        job, gate = federation.held_job("north", "south")
        os.kill(north.job_pid(), signal.SIGKILL)
        federation.control_plane.wait_until(lambda: job.epoch > 1)
        gate.open.set()
        federation.control_plane.wait_until(lambda: job.is_over)
        assert job.state == "completed", job.finished
        assert_results_as_simulated(federation, job, north, south)
        names = {(name, step) for silo, name, _, step in job.metrics if silo == "north"}
        assert {("loss", step) for step in range(9)} <= names
        assert {("eval_loss", -1), ("wire_bytes", -1), ("peak_memory_bytes", -1), ("rows", -1)} <= names

    def test_goes_on_after_the_agent_was_stopped_in_order(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        job, gate = federation.held_job("north")
        assert north.end(signal.SIGTERM) == 0
        north.start()
        federation.control_plane.wait_until(lambda: job.epoch > 1)
        gate.open.set()
        federation.control_plane.wait_until(lambda: job.is_over)
        assert_results_as_simulated(federation, job, north)

    def test_goes_on_while_the_control_plane_is_away(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        job, gate = federation.held_job("north")
        federation.control_plane.is_away = True
        gate.open.set()
        federation.control_plane.wait_until(lambda: job.result is not None)
        federation.control_plane.is_away = False
        federation.control_plane.wait_until(lambda: job.is_over)
        assert job.state == "completed", job.finished
        assert {step for _, name, _, step in job.metrics if name == "loss"} == set(range(9))
        assert "waiting for it" in (north.state_dir / "logs/agent.log").read_text()

    def test_that_is_cancelled_ends_here_within_five_seconds(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        job, _ = federation.held_job("north")
        pid = north.job_pid()
        federation.control_plane.change(job, desired=DesiredState.CANCEL)
        wait_gone(pid)

    def test_trains_the_full_model_of_a_silo_that_holds_its_ends_only(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        job = federation.submit("north", adapter={"kind": "full"}, rounds=1)
        federation.await_approval(job)
        federation.host(job)
        federation.control_plane.wait_until(lambda: job.is_over)
        target = federation.work_dir / "export"
        assert north.command("export", job.id, str(target)).returncode == 0
        files = {"north": north.state_dir.with_suffix(".jsonl")}
        expected = simulated(job.spec, federation.model, files, federation.work_dir / "simulated")
        whole = load_file(expected / "north/result/model.safetensors")
        parts = [load_file(path) for path in sorted(target.glob("*.safetensors"))]
        assert_same({name: value for part in parts for name, value in part.items()}, whole)


class TestSupervisor:
    def test_killed_leaves_no_process(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        federation.held_job("north")
        pid = north.job_pid()
        north.end(signal.SIGKILL)
        wait_gone(pid)

    def test_of_another_folder_with_the_same_identity_is_refused(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        federation.control_plane.wait_until(lambda: "north" in federation.control_plane.datasets)
        twin = Agent("north", federation.work_dir / "twin")
        shutil.copytree(north.state_dir, twin.state_dir)
        (twin.state_dir / "boot.json").unlink()
        done = twin.command("run")
        assert (done.returncode, "identity_in_use" in done.stderr) == (12, True), done.stderr

    def test_of_the_same_folder_is_refused(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        federation.control_plane.wait_until(lambda: "north" in federation.control_plane.datasets)
        done = north.command("run")
        assert (done.returncode, "another process uses the state folder" in done.stderr) == (5, True)

    def test_announces_a_data_set_that_is_added_while_it_runs(self, federation: Federation) -> None:
        north = federation.started_agent("north")
        datasets = federation.control_plane.datasets
        federation.control_plane.wait_until(lambda: "north" in datasets)
        north.command("data", "remove", "notes")
        federation.control_plane.wait_until(lambda: datasets["north"] == [])
        north.add(ROWS[:7])
        federation.control_plane.wait_until(lambda: [d["num_rows"] for d in datasets["north"]] == [7])


class TestRefusals:
    def test_of_an_unknown_data_set_names_it(self, federation: Federation) -> None:
        federation.started_agent("north")
        job = federation.submit("north", silos=[{"name": "north", "dataset": "letters"}])
        federation.control_plane.wait_until(lambda: "north" in job.approvals)
        word, code, reason = job.approvals["north"]
        assert (word, code, "'letters'" in reason) == ("refused", "unknown_dataset", True)

    def test_of_a_job_that_nobody_signed_says_so(self, federation: Federation) -> None:
        federation.started_agent("north")
        other = FakeControlPlane("ws://127.0.0.1:1/relay")
        federation.control_plane.signer = other.signer
        job = federation.submit("north")
        federation.control_plane.wait_until(lambda: "north" in job.approvals)
        assert job.approvals["north"][:2] == ("refused", "untrusted_certificate")

    def test_of_labels_outside_the_vocabulary_tells_counts_and_no_label(self, federation: Federation) -> None:
        rows = [
            {**row, "label": label} for row, label in zip(ROWS, ["well"] * 25 + ["SECRET"] * 5, strict=True)
        ]
        north = federation.started_agent("north", rows=rows)
        task = {"kind": "choice", "prompt": "{text} So:", "answers": {"well": " well.", "ill": " ill."}}
        job = federation.submit("north", task=task)
        federation.control_plane.wait_until(lambda: "north" in job.approvals)
        word, code, reason = job.approvals["north"]
        assert (word, code, "5 of 30 rows" in reason) == ("refused", "unknown_labels", True)
        logs = [reason, *(path.read_text() for path in north.state_dir.rglob("*.log"))]
        assert not [text for text in logs if "SECRET" in text]

    def test_of_missing_columns_tells_how_many_rows_lack_them(self, federation: Federation) -> None:
        federation.started_agent("north")
        job = federation.submit("north", task={"kind": "sft", "prompt": "{text}", "answer": "{diagnosis}"})
        federation.control_plane.wait_until(lambda: "north" in job.approvals)
        assert "30 of 30 rows have no column 'diagnosis'" in job.approvals["north"][2]
