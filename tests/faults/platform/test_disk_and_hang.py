"""Full disks, computations that hang, tidying that fails, at each party: a typed word, and the same bits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from tests.faults.injected import full_disk, hanging, raising

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 15
STEPS = 9
WORDS = {
    "agent-full": ("", "its disk"),
    "worker-full": ("worker:worker-1", "/worker-1/"),
    "api-full": ("worker:worker-1", "the control plane's artifact store"),
}
"""Whose disk is full: who the reason names (the silo where nobody), and what it says; no path of a silo's."""


@dataclass(frozen=True)
class Troubled:
    """A stage, and the files that begin each trouble while they are there."""

    stage: Stage
    flags: Path

    def flag(self, name: str) -> Path:
        return self.flags / name

    def submit(self, inputs: StageInputs, **changes: Any) -> str:
        """Submit a job, and wait until it is in mid-round."""
        before = self.stage.steps_done()
        job = self.stage.submit(inputs.job(**changes))
        self.stage.wait_for_steps(STEPS, since=before)
        return job

    def until(self, job: str, **facts: str) -> dict[str, Any]:
        """Wait for a job's state, or for a part of its reason; return the reason."""

        def find() -> dict[str, Any] | None:
            shown = self.stage.job(job)
            told = {"state": shown["state"], **shown["reason"]}
            return told if all(told[name] == value for name, value in facts.items()) else None

        found: dict[str, Any] = self.stage.wait(find, what=f"{facts}")
        return found

    def unfinished(self) -> list[Path]:
        """What was begun to be written by anybody, and is not whole."""
        patterns = ("*.writing", "*.part", "incoming/*")
        return [path for pattern in patterns for path in self.stage.folder.rglob(pattern)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), rounds=4, steps_per_round=8)


@pytest.fixture(scope="module")
def troubled(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Troubled]:
    database, broker = servers
    folder, flags = tmp_path_factory.mktemp("stage"), tmp_path_factory.mktemp("flags")
    silo = inputs.spec.silos[0].name
    agent = f"agent-{silo}"
    made = Stage(
        folder,
        inputs,
        database=database,
        broker=broker,
        environments={
            agent: {
                **full_disk(folder / agent, flags / "agent-full"),
                **hanging("splitlearn.training.silo", "SiloTrainer", "bottom_forward", flags / "agent-hangs"),
                **raising("client_agent.reporting", "MetricsOutbox", "drained", flags / "agent-untidy"),
            },
            "worker-1": {
                **full_disk(folder / "worker-1", flags / "worker-full"),
                **hanging("splitlearn.training.trunk", "TrunkTrainer", "forward", flags / "worker-hangs"),
                **raising("splitlearn.exchange.exchange", "Exchange", "__aexit__", flags / "worker-untidy"),
            },
            "api": full_disk(folder / "api", flags / "api-full"),
        },
    )
    with made.running():
        yield Troubled(made, flags)


@pytest.fixture(autouse=True)
def end_of_trouble(troubled: Troubled) -> Iterator[None]:
    """End what a test has begun, also where it fails: the next one has the same stage."""
    yield
    for flag in troubled.flags.iterdir():
        flag.unlink()


@pytest.fixture(scope="module")
def undisturbed(troubled: Troubled, inputs: StageInputs) -> Finished:
    """The same job without trouble."""
    return troubled.stage.finish(troubled.stage.submit(inputs.job()))


class TestFullDisk:
    @pytest.mark.parametrize("where", WORDS)
    def test_ends_the_job_by_name_and_a_retry_goes_on(
        self, where: str, troubled: Troubled, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        # The same bits as an earlier job's would lie in the store already, and nothing would be written.
        seed = {"seed": 11} if where == "api-full" else {}
        job = troubled.submit(inputs, **seed)
        troubled.flag(where).touch()
        told = troubled.until(job, state="failed")
        who, what = WORDS[where]
        assert told["who"] == (who or inputs.spec.silos[0].name)
        assert what in told["what"]
        assert "bytes" in told["what"]
        assert "free space" in told["what"] + told["next"]
        troubled.flag(where).unlink()
        assert troubled.unfinished() == []
        troubled.stage.admin.call("POST", f"/jobs/{job}/retry", {})
        finished = troubled.stage.finish(job)
        if seed:
            undisturbed = troubled.stage.finish(troubled.stage.submit(inputs.job(**seed)))
        assert finished == undisturbed


class TestHang:
    def test_of_the_worker_ends_its_process_and_the_job_goes_on(
        self, troubled: Troubled, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage = troubled.stage
        job = troubled.submit(inputs, patience_seconds=PATIENCE_SECONDS)
        troubled.flag("worker-hangs").touch()
        told = troubled.until(job, state="queued", code="worker_stuck")
        assert told["who"] == "worker:worker-1"
        assert f"has not come back for {PATIENCE_SECONDS} seconds (patience_seconds)" in told["what"]
        assert told["where"].startswith("round ")
        stage.wait(lambda: not stage.is_running("worker-1"), what="the end of the worker's process")
        troubled.flag("worker-hangs").unlink()
        stage.start("worker-1")
        assert stage.finish(job) == undisturbed

    def test_of_a_silo_ends_its_process_and_the_job_goes_on(
        self, troubled: Troubled, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage, silo = troubled.stage, inputs.spec.silos[0].name
        job = troubled.submit(inputs, patience_seconds=PATIENCE_SECONDS)
        [process] = stage.job_processes(silo)
        troubled.flag("agent-hangs").touch()
        stage.wait(lambda: not process.is_running(), what="the end of the job's process")
        troubled.flag("agent-hangs").unlink()
        assert stage.finish(job) == undisturbed
        assert "its process ended with code 11; started again" in stage.log_of(f"agent-{silo}")


class TestTidying:
    def test_that_fails_after_the_last_round_takes_no_result_away(
        self, troubled: Troubled, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        """The worker cannot close its conversations, nor the agent hand over its last numbers."""
        stage, silo = troubled.stage, inputs.spec.silos[0].name
        job = troubled.submit(inputs)
        for name in ("worker-untidy", "agent-untidy"):
            troubled.flag(name).touch()
        finished = stage.finish(job)
        for name in ("worker-untidy", "agent-untidy"):
            troubled.flag(name).unlink()
        # The agent's last losses are what was not handed over.
        assert (finished.adapters, finished.trunk) == (undisturbed.adapters, undisturbed.trunk)
        assert "tidying_failed" in stage.log_of("worker-1")
        log = stage.result_folder(silo, job).parent / "agent.log"
        assert "the last numbers were not handed over (OSError)" in log.read_text()
