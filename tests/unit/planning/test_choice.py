"""The choice of a schedule, on made-up tables."""

import pytest

from splitlearn.planning import (
    Candidate,
    Choice,
    Host,
    Prediction,
    choose_schedule,
    possible_schedules,
    with_schedule,
)
from splitlearn.spec import JobSpec
from tests.unit.planning.made_up import job

GIB = 1 << 30
AUTO = job(4, schedule="auto")


def candidates(spec: JobSpec, *rows: tuple[str, int, float, float]) -> list[Candidate]:
    """Rows of schedule, replicas, GiB of the trunk, and seconds of a round."""
    found = []
    for schedule, replicas, size, seconds in rows:
        resolved = with_schedule(spec, schedule, replicas=replicas)
        assert resolved is not None
        found.append(Candidate(resolved, int(size * GIB), predicted(seconds)))
    return found


def predicted(seconds: float) -> Prediction:
    return Prediction(seconds, seconds, 0, 0, 0, 0, 0.0, 0.0)


def choose(*rows: tuple[str, int, float, float], hosts: tuple[float, ...]) -> Choice:
    workers = [Host(f"worker-{number}", int(size * GIB)) for number, size in enumerate(hosts)]
    return choose_schedule(candidates(AUTO, *rows), workers)


def shown(choice: Choice) -> tuple[str, int]:
    return choice.spec.schedule, choice.spec.replicas


BATCHING = ("client-batching", 1, 4.0, 10.0)
SERIAL = ("serial", 1, 1.0, 30.0)


class TestChooseSchedule:
    @pytest.mark.parametrize(
        ("rows", "hosts", "expected"),
        [
            ((BATCHING, SERIAL), (8.0,), ("client-batching", 1)),
            ((BATCHING, SERIAL), (2.0,), ("serial", 1)),
            ((BATCHING, SERIAL), (0.5,), ("client-batching", 1)),
            ((BATCHING, SERIAL), (), ("client-batching", 1)),
            ((BATCHING, SERIAL), (0.0,), ("client-batching", 1)),
            ((BATCHING, ("serial", 1, 1.0, 9.0)), (8.0,), ("client-batching", 1)),
            ((BATCHING, ("serial", 1, 1.0, 7.0)), (8.0,), ("serial", 1)),
            ((BATCHING, SERIAL, ("hierarchical", 2, 2.0, 5.0)), (8.0, 8.0), ("hierarchical", 2)),
            ((BATCHING, SERIAL, ("hierarchical", 2, 2.0, 9.0)), (8.0, 8.0), ("client-batching", 1)),
            ((BATCHING, SERIAL, ("hierarchical", 2, 2.0, 5.0)), (8.0, 1.0), ("client-batching", 1)),
            ((BATCHING, SERIAL, ("hierarchical", 2, 2.0, 50.0)), (2.0, 2.0), ("serial", 1)),
            (
                (BATCHING, SERIAL, ("hierarchical", 2, 2.0, 5.0), ("hierarchical", 4, 1.0, 3.0)),
                (8.0, 8.0, 8.0, 8.0),
                ("hierarchical", 4),
            ),
        ],
        ids=[
            "all at once is quickest",
            "all at once fits nobody",
            "nothing fits",
            "nobody is there",
            "memory is not known",
            "turns are a little quicker",
            "turns are much quicker",
            "a worker for each replica",
            "replicas are hardly quicker",
            "one of two workers is too small",
            "replicas fit, turns are quicker",
            "more workers, more replicas",
        ],
    )
    def test_on_tables(
        self,
        rows: tuple[tuple[str, int, float, float], ...],
        hosts: tuple[float, ...],
        expected: tuple[str, int],
    ) -> None:
        assert shown(choose(*rows, hosts=hosts)) == expected

    def test_one_silo_needs_no_choice(self) -> None:
        alone = job(1, schedule="auto")
        choice = choose_schedule(candidates(alone, BATCHING, SERIAL), [Host("worker", 1)])
        assert shown(choice) == ("client-batching", 1)

    def test_the_reason_has_the_numbers(self) -> None:
        reason = choose(BATCHING, SERIAL, hosts=(8.0,)).reason
        assert reason == "1 worker; a round takes about 10 s client-batching, 30 s serial"
        reason = choose(BATCHING, SERIAL, hosts=(2.0,)).reason
        assert reason.endswith("the trunk of all silos at once fits none: it needs 4.00 GiB")

    def test_the_order_of_candidates_decides_nothing_but_equals(self) -> None:
        rows = (BATCHING, SERIAL, ("hierarchical", 2, 2.0, 5.0))
        assert shown(choose(*rows, hosts=(8.0, 8.0))) == shown(choose(*rows[::-1], hosts=(8.0, 8.0)))


class TestPossibleSchedules:
    def names(self, spec: JobSpec, *, num_hosts: int, hierarchical: bool = True) -> list[tuple[str, int]]:
        found = possible_schedules(spec, num_hosts=num_hosts, hierarchical=hierarchical)
        return [(each.schedule, each.replicas) for each in found]

    def test_as_many_replicas_as_there_are_workers_or_silos(self) -> None:
        both = [("client-batching", 1), ("serial", 1)]
        assert self.names(AUTO, num_hosts=1) == both
        assert self.names(AUTO, num_hosts=2) == [*both, ("hierarchical", 2)]
        assert self.names(AUTO, num_hosts=9)[-1] == ("hierarchical", 4)

    def test_the_job_may_say_how_many_at_most(self) -> None:
        assert self.names(job(4, schedule="auto", replicas=2), num_hosts=9)[-1] == ("hierarchical", 2)

    def test_none_where_they_are_not_served(self) -> None:
        assert ("hierarchical", 2) not in self.names(AUTO, num_hosts=9, hierarchical=False)

    def test_what_the_job_asks_for_besides_rules_schedules_out(self) -> None:
        averaged = job(4, schedule="auto", silo_blocks="averaged", averaging={"every_steps": 1})
        assert self.names(averaged, num_hosts=2) == [("client-batching", 1)]

    def test_all_else_stays_as_it_was_asked_for(self) -> None:
        spec = job(4, schedule="auto", seed=7)
        resolved = with_schedule(spec, "client-batching")
        assert resolved is not None
        changed = {"schedule": "client-batching"}
        assert resolved.model_dump() == {**spec.model_dump(), **changed}
