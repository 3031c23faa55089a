"""Jobs to workers, and turns, by tables."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.jobs.placing import Need, Turn, WorkerView, choose, ending_turns, in_turn, what_lacks

GIB = 1 << 30
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MODEL = "ab" * 32
NEED = Need(model=MODEL, family="llama", precision="fp32", lasting_bytes=8 * GIB)
LARGE = WorkerView("large", memory_bytes=80 * GIB, families=("llama",))
SMALL = WorkerView("small", memory_bytes=4 * GIB, families=("llama",))
FAST = WorkerView("very-fast", memory_bytes=80 * GIB, tokens_per_second=9000.0)
KNOWS = WorkerView("with-layers", memory_bytes=80 * GIB, models=(MODEL,))


class TestWhatLacks:
    @pytest.mark.parametrize(
        ("worker", "need", "lack"),
        [
            (LARGE, NEED, None),
            (SMALL, None, None),
            (SMALL, NEED, "it has 4.00 GiB, and weights, gradients and optimiser need 8.00 GiB"),
            (LARGE, replace(NEED, precision="bf16"), "it computes in fp32, not in bf16"),
            (LARGE, replace(NEED, family="glm"), "its version does not know the family glm"),
            (FAST, replace(NEED, family="glm"), None),
        ],
    )
    def test_names_it(self, worker: WorkerView, need: Need | None, lack: str | None) -> None:
        assert what_lacks(worker, need) == lack


class TestChoose:
    @pytest.mark.parametrize(
        ("workers", "last", "chosen"),
        [
            ((), None, None),
            ((SMALL,), None, None),
            ((SMALL,), "small", None),
            ((SMALL, LARGE), None, "large"),
            ((LARGE, FAST), None, "very-fast"),
            ((LARGE, FAST, KNOWS), None, "with-layers"),
            ((LARGE, FAST, KNOWS), "large", "large"),
            ((replace(LARGE, is_idle=False), FAST), "large", "very-fast"),
            ((replace(LARGE, is_drained=True),), "large", None),
            ((replace(LARGE, name="b"), replace(LARGE, name="a")), None, "a"),
        ],
    )
    def test_who_hosted_it_then_who_has_the_model_then_the_fastest(
        self, workers: tuple[WorkerView, ...], last: str | None, chosen: str | None
    ) -> None:
        found = choose(workers, NEED, last_worker=last)
        assert (None if found is None else found.name) == chosen


@dataclass(frozen=True)
class Waiting:
    name: str
    project: str = "a"
    project_served_at: datetime | None = None
    served_at: datetime | None = None


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class TestInTurn:
    def order(self, *jobs: Waiting, **hosted: int) -> list[str]:
        return [job.name for job in in_turn(jobs, hosted_of=lambda project: hosted.get(str(project), 0))]

    def test_the_oldest_comes_first_where_nobody_was_served(self) -> None:
        assert self.order(Waiting("first"), Waiting("second", "b"), Waiting("third")) == [
            "first",
            "second",
            "third",
        ]

    def test_a_job_that_had_its_turn_waits_for_the_others(self) -> None:
        assert self.order(Waiting("first", served_at=ago(1)), Waiting("second")) == ["second", "first"]

    def test_the_one_that_had_it_longest_ago_comes_before(self) -> None:
        jobs = Waiting("first", served_at=ago(1)), Waiting("second", served_at=ago(9))
        assert self.order(*jobs) == ["second", "first"]

    def test_a_project_with_many_jobs_gets_no_more_turns_than_one_with_few(self) -> None:
        many = [Waiting(f"many-{number}", "a", project_served_at=ago(1)) for number in range(3)]
        assert self.order(*many, Waiting("single", "b", ago(5), ago(5)))[0] == "single"

    def test_a_project_that_is_hosted_elsewhere_comes_later(self) -> None:
        jobs = Waiting("hosted", "a", ago(9), None), Waiting("other", "b", ago(1), ago(1))
        assert self.order(*jobs, a=1) == ["other", "hosted"]

    def test_turns_of_two_projects_alternate_and_jobs_within_each_too(self) -> None:
        served: dict[str, datetime] = {}
        jobs = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"}
        turns: list[str] = []
        for number in range(12):
            waiting = [
                Waiting(
                    name,
                    project,
                    max((served[each] for each in served if jobs[each] == project), default=None),
                    served.get(name),
                )
                for name, project in jobs.items()
            ]
            first = in_turn(waiting, hosted_of=lambda _: 0)[0].name
            served[first] = NOW + timedelta(seconds=number)
            turns.append(first)
        assert turns == ["a1", "b1", "a2", "b2", "a3", "b1", "a1", "b2", "a2", "b1", "a3", "b2"]


class TestEndingTurns:
    TURN = timedelta(seconds=30)

    def ends(self, *turns: Turn, waiting: int) -> list[str]:
        found = ending_turns(turns, num_waiting=waiting, turn=self.TURN, now=NOW)
        return [turn.worker for turn in found]

    def test_nobody_gives_way_where_nobody_waits(self) -> None:
        assert self.ends(Turn("gpu-1", "a", ago(99)), waiting=0) == []

    def test_a_turn_lasts_as_long_as_is_set(self) -> None:
        assert self.ends(Turn("gpu-1", "a", ago(29)), waiting=1) == []
        assert self.ends(Turn("gpu-1", "a", ago(30)), waiting=1) == ["gpu-1"]

    def test_no_more_give_way_than_wait(self) -> None:
        turns = Turn("gpu-1", "a", ago(40)), Turn("gpu-2", "b", ago(50))
        assert self.ends(*turns, waiting=1) == ["gpu-2"]
        assert self.ends(*turns, waiting=9) == ["gpu-2", "gpu-1"]

    def test_the_project_with_most_workers_gives_way_first(self) -> None:
        turns = Turn("gpu-1", "a", ago(90)), Turn("gpu-2", "b", ago(40)), Turn("gpu-3", "b", ago(50))
        assert self.ends(*turns, waiting=1) == ["gpu-3"]
