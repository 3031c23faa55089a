"""Machines whose clocks are a day apart: nobody's log-in, lease, ticket or session depends on his own."""

from collections.abc import Iterator

import pytest

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from tests.faults.injected import DAY, clock_wrong_by

pytestmark = pytest.mark.slow

STEPS = 9
LEASE_SECONDS = 5
SKEWS = {
    "some ahead": {"api": -DAY, "gateway": DAY, "worker-1": -DAY, "north": DAY, "south": -DAY},
    "the others ahead": {"api": DAY, "gateway": -DAY, "worker-1": DAY, "north": -DAY, "south": DAY},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), rounds=3, steps_per_round=8)


@pytest.fixture(scope="module")
def stage(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    database, broker = servers
    short = {"TRUNKLINE_LEASE_SECONDS": str(LEASE_SECONDS)}
    made = Stage(
        tmp_path_factory.mktemp("stage"),
        inputs,
        database=database,
        broker=broker,
        environments={"api": short},
    )
    with made.running():
        yield made


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, inputs: StageInputs) -> Finished:
    """The same job where all clocks are right."""
    return stage.finish(stage.submit(inputs.job()))


def part_of(stage: Stage, word: str) -> str:
    """A part by its name, or an agent by its place in the roster."""
    places = {"north": 0, "south": 1}
    return f"agent-{stage.silos[places[word]]}" if word in places else word


def set_clocks(stage: Stage, skew: dict[str, int]) -> None:
    """Start the parts again on machines with these clocks, in the order in which they need each other."""
    parts = [part_of(stage, word) for word in skew]
    usual = {part: dict(stage.environments.get(part, {})) for part in parts}
    for part in reversed(parts):
        stage.stop(part)
    for word, part in zip(skew, parts, strict=True):
        stage.environments[part] = {**usual[part], **clock_wrong_by(skew[word])}
        stage.start(part)


class TestClocks:
    @pytest.mark.parametrize("kind", ["some ahead", pytest.param("the others ahead", marks=pytest.mark.long)])
    def test_a_day_apart_change_nothing(
        self, kind: str, stage: Stage, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        before = stage.steps_done()
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS, since=before)
        set_clocks(stage, SKEWS[kind])
        assert stage.finish(job) == undisturbed
        assert "expired_ticket" not in stage.log_of("gateway")

    def test_of_two_api_machines_neither_takes_the_others_leases(
        self, stage: Stage, inputs: StageInputs, undisturbed: Finished
    ) -> None:
        """What one writes, the other judges: the API is replaced, in mid-job, by one of another day."""
        job = stage.submit(inputs.job())
        stage.wait_for_steps(STEPS)
        set_clocks(stage, {"api": 2 * DAY})
        assert stage.finish(job) == undisturbed
        granted = stage.events(job, "lease_granted")
        assert len(granted) == 1, "the lease did not expire with the other machine's date"
