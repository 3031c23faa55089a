"""Parts killed while replicas train, and while they meet: nothing is lost, the best round is kept."""

from collections.abc import Iterator

import pytest

from bench.stage import Finished, OwnServer, Stage, StageInputs, make_inputs
from splitlearn.spec import EvaluationSpec, JobSpec
from tests.faults.platform.stage import kill_and_start

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROUNDS, STEPS_PER_ROUND = 4, 10
REPLICAS = 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_inputs(
        tmp_path_factory.mktemp("inputs"),
        silos=3,
        silo_blocks="averaged",
        rounds=ROUNDS,
        steps_per_round=STEPS_PER_ROUND,
    )


@pytest.fixture(scope="module")
def stage(
    servers: tuple[OwnServer, OwnServer], inputs: StageInputs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    database, broker = servers
    made = Stage(tmp_path_factory.mktemp("stage"), inputs, database=database, broker=broker)
    with made.running():
        yield made


@pytest.fixture(scope="module")
def spec(inputs: StageInputs) -> JobSpec:
    """Replicas in turns at one worker, whose silos meet to add up and to decide."""
    return inputs.job(
        schedule="hierarchical",
        replicas=REPLICAS,
        evaluation=EvaluationSpec(every_rounds=1, max_rows=6, keep_best=True, patience_evaluations=2),
    )


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, spec: JobSpec) -> Finished:
    """The same job, let alone."""
    return stage.finish(stage.submit(spec))


class TestReplicas:
    def test_every_part_killed_while_they_train_changes_nothing(
        self, stage: Stage, spec: JobSpec, undisturbed: Finished
    ) -> None:
        job = stage.submit(spec)
        for part in ("worker-1", "database", "api", f"child-{stage.silos[2]}", "broker", "gateway"):
            stage.wait_for_steps(STEPS_PER_ROUND // 2, since=stage.steps_done())
            assert stage.job(job)["state"] not in {"completed", "failed"}, f"too late to kill {part}"
            kill_and_start(stage, part)
        assert stage.finish(job) == undisturbed

    @pytest.mark.parametrize(
        "part",
        [
            "worker-1",
            "child",
            "api",
        ],
    )
    def test_a_part_killed_while_they_meet_changes_nothing(
        self, part: str, stage: Stage, spec: JobSpec, undisturbed: Finished
    ) -> None:
        job = stage.submit(spec)

        def meets() -> bool:
            held = stage.job(job)["leases"]
            return bool(stage.events(job, "round_averaged")) and any(
                lease["replica"] == REPLICAS for lease in held
            )

        stage.wait(meets, what="the second meeting")
        kill_and_start(stage, f"child-{stage.silos[0]}" if part == "child" else part)
        assert stage.finish(job) == undisturbed
