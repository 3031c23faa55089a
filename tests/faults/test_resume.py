"""Death and resume: a job that was interrupted anywhere ends as one that nobody disturbed."""

import asyncio
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from splitlearn.errors import StorageError
from splitlearn.parties import Progress, RoundFinished, StepDone, TurnStarted
from splitlearn.simulation.federation import TRUNK_PARTY, Federation
from splitlearn.simulation.results import SimulationResult
from splitlearn.wire import Phase
from tests.integration.conftest import Heard, Job, NewJob, assert_same, silo_rows

SHAPE: dict[str, Any] = {
    "rounds": 3,
    "steps_per_round": 2,
    "batch_size": 2,
    "evaluation": {"every_rounds": 1, "batch_size": 5},
    "patience_seconds": 20,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "client-batching": ("llama", {}),
    "serial-dropout": ("gpt2-dropout", {"schedule": "serial", "turn_steps": 1}),
    "frozen": ("llama", {"silo_blocks": "frozen"}),
}


class PowerCutError(Exception):
    """Nothing that the code knows of."""


def at(kind: type[Any], **facts: Any) -> Callable[[Progress], None]:
    """Cut the power at the first report of a kind with these facts."""

    def cut(progress: Progress) -> None:
        if isinstance(progress, kind) and all(getattr(progress, key) == facts[key] for key in facts):
            raise PowerCutError

    return cut


@pytest.fixture(scope="module")
def _undisturbed() -> dict[str, tuple[dict[str, Any], list[Any]]]:
    return {}


@pytest.fixture
def prepare(new_job: NewJob) -> Callable[[str], Job]:
    def build(kind: str) -> Job:
        name, fields = KINDS[kind]
        return new_job(name, silo_rows("a"), silo_rows("b", longest=5), **{**SHAPE, **fields})

    return build


def told(result: SimulationResult) -> list[Any]:
    """What a result says of the training itself."""
    return [
        (
            [(step.step, step.loss, step.applied) for step in silo.steps],
            [(found.round, found.loss, found.num_tokens) for found in silo.evaluations],
        )
        for silo in result.silos
    ]


@pytest.fixture
def check(
    prepare: Callable[[str], Job], _undisturbed: dict[str, Any]
) -> Callable[[str, Job, SimulationResult], None]:
    """Compare a job's end with that of the same job undisturbed."""

    def compare(kind: str, job: Job, result: SimulationResult) -> None:
        if kind not in _undisturbed:
            whole = prepare(kind)
            _undisturbed[kind] = (told(whole.run()), whole.everything())
        expected_result, expected_tensors = _undisturbed[kind]
        assert told(result) == expected_result
        assert_same(job.everything(), expected_tensors)

    return compare


class TestInterruption:
    @pytest.mark.parametrize("kind", KINDS)
    def test_in_the_middle_of_a_round(self, kind: str, prepare: Any, check: Any) -> None:
        job = prepare(kind)
        with pytest.raises(PowerCutError):
            job.run(on_progress=at(StepDone, silo="b", round=2))

        heard = Heard(StepDone)
        result = job.run(resume=True, on_progress=heard)

        assert {report.round for report in heard.reports} == {2, 3}
        check(kind, job, result)

    @pytest.mark.parametrize(
        "cut",
        [
            at(TurnStarted, silo="a", round=1),
            at(TurnStarted, phase=Phase.EVAL, round=2),
            at(RoundFinished, round=2),
            at(RoundFinished, round=3),
        ],
        ids=["before-anything", "in-evaluation", "between-rounds", "after-the-last-round"],
    )
    def test_elsewhere(self, cut: Callable[[Progress], None], prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        with pytest.raises(PowerCutError):
            job.run(on_progress=cut)
        check("client-batching", job, job.run(resume=True))

    def test_again_and_again(self, prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        for number in (1, 2, 3):
            with pytest.raises(PowerCutError):
                job.run(on_progress=at(StepDone, round=number), resume=True)
        check("client-batching", job, job.run(resume=True))

    def test_by_cancelling(self, prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        made: list[Federation] = []

        def cancel(progress: Progress) -> None:
            if isinstance(progress, StepDone) and progress.round == 2:
                made[0].cancel()

        made.append(
            Federation(
                job.spec, model_folder=job.folder, data=job.data, work_dir=job.work_dir, on_progress=cancel
            )
        )
        with pytest.raises(asyncio.CancelledError):
            made[0].run()
        check("client-batching", job, job.run(resume=True))


class TestUnequalCheckpoints:
    def test_go_back_to_the_last_common_round(self, prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        job.run()
        shutil.rmtree(job.work_dir / "silos" / "b" / "checkpoints" / "round-00000003")

        heard = Heard(StepDone)
        result = job.run(resume=True, on_progress=heard)

        assert {report.round for report in heard.reports} == {3}
        check("client-batching", job, result)

    @pytest.mark.parametrize("loser", ["b", TRUNK_PARTY])
    def test_a_party_that_lost_all_begins_anew_with_everybody(
        self, loser: str, prepare: Any, check: Any
    ) -> None:
        """The others' later checkpoints are of a future given up: a second crash must not meet them."""
        job = prepare("client-batching")
        job.run()
        job.checkpoints(loser).clear()
        with pytest.raises(PowerCutError):
            job.run(resume=True, on_progress=at(TurnStarted, silo="a", round=2))

        heard = Heard(StepDone)
        result = job.run(resume=True, on_progress=heard)

        assert {report.round for report in heard.reports} == {2, 3}
        check("client-batching", job, result)

    @pytest.mark.parametrize("party", ["b", TRUNK_PARTY])
    @pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
    def test_a_torn_one_is_refused_by_name(self, party: str, file: str, prepare: Any) -> None:
        job = prepare("client-batching")
        with pytest.raises(PowerCutError):
            job.run(on_progress=at(RoundFinished, round=1))
        folder = "worker" if party == TRUNK_PARTY else f"silos/{party}"
        torn = job.work_dir / folder / "checkpoints" / "round-00000001" / file
        torn.write_bytes(torn.read_bytes()[:-7])

        with pytest.raises(StorageError, match=f"{folder}/checkpoints/round-00000001.* delete it to resume"):
            job.run(resume=True)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let the system refuse larger files of this process, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    def test_leaves_whole_checkpoints_and_a_sentence(self, prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        with pytest.raises(PowerCutError):
            job.run(on_progress=at(RoundFinished, round=1))

        with (
            largest_file(32 << 10),
            pytest.raises(StorageError, match=r"cannot write checkpoint .*round-00000002"),
        ):
            job.run(resume=True)

        for party in ("a", "b", TRUNK_PARTY):
            assert job.checkpoints(party).rounds() == [1]
            assert job.checkpoints(party).load(1)
        assert not list(job.work_dir.rglob(".*"))
        check("client-batching", job, job.run(resume=True))

    def test_while_the_result_is_written(self, prepare: Any, check: Any) -> None:
        """The result is larger than every party's checkpoint of frozen blocks."""
        job = prepare("frozen")
        with pytest.raises(PowerCutError):
            job.run(on_progress=at(RoundFinished, round=3))
        weights = job.folder / "model.safetensors"

        with largest_file(weights.stat().st_size // 2), pytest.raises(StorageError, match="silos/a/result"):
            job.run(resume=True)

        assert not list((job.work_dir / "silos").glob("*/result*"))
        assert not list(job.work_dir.rglob(".*"))
        check("frozen", job, job.run(resume=True))


class TestBeginAnew:
    def test_forgets_an_earlier_run(self, prepare: Any, check: Any) -> None:
        job = prepare("client-batching")
        with pytest.raises(PowerCutError):
            job.run(on_progress=at(RoundFinished, round=2))
        heard = Heard(StepDone)
        result = job.run(on_progress=heard)
        assert {report.round for report in heard.reports} == {1, 2, 3}
        check("client-batching", job, result)

    def test_refuses_to_replace_a_result_before_it_trains(self, prepare: Any) -> None:
        job = prepare("client-batching")
        job.run()
        heard = Heard(StepDone)
        with pytest.raises(StorageError, match=r"silos/a/result exists already"):
            job.run(on_progress=heard)
        assert heard.reports == []
