"""What lies between sites: lines that break, crawl and repeat, proxies with words of their own, silence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from splitlearn.processes import free_port
from tests.faults.proxies import Front, Line, Mood, Weather

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 15
COMMAND_SECONDS = 120
STEPS = 9
"""No divisor of a round's eight: what happens after so many happens in mid-round."""
WEATHERS = {
    "breaks at any byte": Weather(cuts=(2_000, 300_000)),
    "repeats messages": Weather(repeat_every=23),
    "is slow": Weather(delay_seconds=0.005, bytes_per_second=2_000_000),
}
MOODS: tuple[Mood, ...] = ("502", "503", "504", "truncated", "hung")
PAGE = f"a proxy before the control plane answers {MOODS[0]}"
"""What a worker says of the first."""


class Country:
    """A stage whose every line to gateway and API leads through the test's own proxies."""

    def __init__(self, folder: Path, inputs: StageInputs, database: OwnServer, broker: OwnServer) -> None:
        api_port, gateway_port = free_port(), free_port()
        self.front, self.line = Front(api_port), Line(gateway_port)
        public_url = f"http://127.0.0.1:{self.front.port}"
        self.stage = Stage(
            folder,
            inputs,
            database=database,
            broker=broker,
            gateway_url=f"ws://127.0.0.1:{self.line.port}/relay",
            public_url=public_url,
            ports=(api_port, gateway_port),
            environments={
                "gateway": {"TRUNKLINE_GATEWAY_STANDINGS_URL": f"{public_url}/api/v1/standings"},
            },
        )

    def attempts(self, job: str) -> tuple[int, int]:
        """Leases that were granted, and epochs that were raised besides."""
        return tuple(len(self.stage.events(job, kind)) for kind in ("lease_granted", "epoch_raised"))  # type: ignore[return-value]

    def command(self, *words: str) -> "subprocess.Popen[str]":
        """Type a command at a machine behind the proxy."""
        token = self.stage.admin._client.headers["Authorization"].removeprefix("Bearer ")
        own = {"TRUNKLINE_URL": f"http://127.0.0.1:{self.front.port}", "TRUNKLINE_TOKEN": token}
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "backend.cli", *words],
            env={**os.environ, **own},  # noqa: TID251 - a child needs a PATH
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), rounds=5, steps_per_round=8)


@pytest.fixture(scope="module")
def country(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Country]:
    made = Country(tmp_path_factory.mktemp("stage"), inputs, *servers)
    with made.front, made.line, made.stage.running():
        yield made


@pytest.fixture(scope="module")
def undisturbed(country: Country, inputs: StageInputs) -> Finished:
    """The same job in fair weather."""
    return country.stage.finish(country.stage.submit(inputs.job()))


@pytest.fixture(autouse=True)
def _fair_again(country: Country) -> Iterator[None]:
    yield
    country.line.weather = Weather()
    country.front.mood = "pass"


class TestLine:
    @pytest.mark.parametrize(
        "kind",
        [
            "breaks at any byte",
            "repeats messages",
            pytest.param("is slow", marks=pytest.mark.long),
        ],
    )
    def test_costs_no_step_and_no_bit(
        self, kind: str, country: Country, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage, line = country.stage, country.line
        faults, before = line.num_cut + line.num_repeated, stage.steps_done()
        line.weather = WEATHERS[kind]
        job = stage.submit(inputs.job())
        assert stage.finish(job) == undisturbed
        assert stage.steps_done() - before == inputs.spec.total_steps, "a step was trained twice"
        assert country.attempts(job) == (1, 0), "a silo began again"
        assert kind == "is slow" or line.num_cut + line.num_repeated - faults >= 10


class TestFront:
    def test_no_word_of_a_proxys_ends_anybody(
        self, country: Country, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        """502, 503, 504 with a page, an answer cut short after it was obeyed, and none at all."""
        stage, front = country.stage, country.front
        before = stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(3, since=before)
        watching = country.command("jobs", "watch", job)
        for mood in MOODS:
            front.mood = mood
            stage.wait(lambda: front.num_answered >= 4, what=f"questions that meet {mood}")
            if mood == MOODS[0]:  # nobody can commit a round meanwhile: the job stays under way
                stage.wait(lambda: everybody_has_met(stage), what="everybody's word of it")
            front.mood = "pass"
            stage.wait(lambda: stage.admin.call("GET", "/silos"), what="an answer")
        assert stage.finish(job) == undisturbed
        assert stage.steps_done() - before == inputs.spec.total_steps
        assert country.attempts(job) == (1, 0)
        printed, _ = watching.communicate(timeout=COMMAND_SECONDS)
        assert (watching.returncode, "job_state  completed" in printed) == (0, True)
        assert "control_plane_back" in stage.log_of("worker-1")

    def test_a_command_waits_and_says_so(self, country: Country) -> None:
        country.front.mood = "502"
        listing = country.command("jobs", "list", "--json")
        assert listing.stderr is not None
        assert "is away (502 is answered); waiting" in listing.stderr.readline()
        country.front.mood = "pass"
        printed, said = listing.communicate(timeout=COMMAND_SECONDS)
        assert listing.returncode == 0
        assert printed
        assert "the control plane is back" in said


def everybody_has_met(stage: Stage) -> bool:
    """Whether worker, gateway and agents have told that the control plane is away."""
    return (
        PAGE in stage.log_of("worker-1")
        and "standings_unknown" in stage.log_of("gateway")
        and all("waiting for it" in said for said in agents_said(stage))
    )


def agents_said(stage: Stage) -> list[str]:
    """The logs of all agents."""
    return [stage.log_of(f"agent-{silo}") for silo in stage.silos]


def reason_of(job: dict[str, Any]) -> tuple[str, str, str]:
    """State, code and who."""
    return job["state"], job["reason"]["code"], job["reason"]["who"]


class TestSiloAway:
    def test_job_waits_beyond_patience_says_for_whom_and_goes_on(
        self, country: Country, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage, (_, south) = country.stage, country.stage.silos
        job = stage.submit(inputs.job(patience_seconds=PATIENCE_SECONDS))
        stage.wait_for_steps(STEPS)
        stage.kill(f"agent-{south}")
        stage.wait(lambda: stage.job(job)["reason"]["code"] == "silo_away", what="the word that it is away")
        shown = stage.job(job)
        assert reason_of(shown) == ("queued", "silo_away", f"silo:{south}")
        assert f"{PATIENCE_SECONDS} seconds (patience_seconds)" in shown["reason"]["what"]
        assert shown["reason"]["where"].startswith("round ")
        assert "goes on by itself when the silo is back" in shown["reason"]["next"]
        assert shown["lease"] is None, "a worker is held for nobody"
        stage.start(f"agent-{south}")
        assert stage.finish(job) == undisturbed

    def test_so_does_a_job_whose_gateway_is_away(
        self, country: Country, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage = country.stage
        job = stage.submit(inputs.job(patience_seconds=PATIENCE_SECONDS))
        stage.wait_for_steps(STEPS)
        stage.kill("gateway")
        stage.wait(lambda: stage.job(job)["reason"]["code"] == "silo_away", what="the word of it")
        assert "no gateway at" in stage.job(job)["reason"]["what"]
        stage.start("gateway")
        assert stage.finish(job) == undisturbed


class TestPause:
    def test_and_resume_change_nothing(
        self, country: Country, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        stage, before = country.stage, country.stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS, since=before)
        stage.admin.call("POST", f"/jobs/{job}/pause")  # a command takes as long to load as the job to end
        stage.wait(lambda: stage.job(job)["state"] == "paused", what="the pause")
        assert stage.steps_done() - before < inputs.spec.total_steps
        assert stage.job(job)["lease"] is None
        resuming = country.command("jobs", "resume", job)
        assert stage.finish(job) == undisturbed
        assert stage.steps_done() - before == inputs.spec.total_steps, "a round was trained twice"
        resuming.communicate(timeout=COMMAND_SECONDS)
        assert resuming.returncode == 0
