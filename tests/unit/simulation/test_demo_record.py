import math
from collections.abc import Callable
from pathlib import Path

import pytest

from splitlearn.errors import StorageError
from splitlearn.parties import Evaluated, RoundFinished, StepDone, TurnFinished, ignore_progress
from splitlearn.simulation.record import RunRecord, WireBytes


def step(number: int, *, loss: float = 1.0) -> StepDone:
    return StepDone("a", 1 + number, number, loss, 3, 5, applied=True, seconds=0.1)


Traffic = dict[str, WireBytes]
NewRecord = Callable[[Traffic], RunRecord]


@pytest.fixture
def new_record(tmp_path: Path) -> NewRecord:
    """Begin to listen as one process; all write the same file."""
    return lambda traffic: RunRecord(tmp_path / "h.jsonl", traffic=lambda: traffic, forward=ignore_progress)


def run_rounds(record: RunRecord, numbers: range, traffic: Traffic) -> None:
    for number in numbers:
        record(step(number - 1, loss=math.nan if number == 2 else float(number)))
        record(TurnFinished(("a",), number, 1, 0.25))
        record(Evaluated("a", number, 0.5, 7, None))
        traffic["a"] = traffic.get("a", WireBytes()) + WireBytes(training=100, evaluation=10)
        record(RoundFinished(number))


class TestRounds:
    def test_reads_what_another_process_wrote(self, new_record: NewRecord) -> None:
        traffic: Traffic = {}
        first = new_record(traffic)
        first.begin()
        run_rounds(first, range(1, 4), traffic)
        second = new_record({})
        second.read()
        assert second.last_round == 3
        assert second.turns == first.turns
        assert second.evaluations == first.evaluations
        assert [one.step for one in second.steps] == [0, 1, 2]
        assert math.isnan(second.steps[1].loss)

    def test_a_torn_line_does_not_count(self, new_record: NewRecord, tmp_path: Path) -> None:
        traffic: Traffic = {}
        record = new_record(traffic)
        record.begin()
        run_rounds(record, range(1, 3), traffic)
        whole = (tmp_path / "h.jsonl").read_bytes()
        (tmp_path / "h.jsonl").write_bytes(whole[:-20])
        record.read()
        assert record.last_round == 1

    def test_forgets_rounds_that_are_done_again(self, new_record: NewRecord) -> None:
        traffic: Traffic = {}
        first = new_record(traffic)
        first.begin()
        run_rounds(first, range(1, 4), traffic)
        traffic = {}
        second = new_record(traffic)
        second.read()
        second.keep([2])
        run_rounds(second, range(3, 4), traffic)
        third = new_record({})
        third.read()
        assert [turn.round for turn in third.turns] == [1, 2, 3]

    def test_steps_of_an_unfinished_round_are_known_but_not_kept(self, new_record: NewRecord) -> None:
        record = new_record({})
        record.begin()
        record(step(0))
        assert len(record.steps) == 1
        other = new_record({})
        other.read()
        assert other.steps == ()


class TestWireBytes:
    def test_counts_on_from_the_last_round_that_was_kept(self, new_record: NewRecord) -> None:
        traffic: Traffic = {}
        first = new_record(traffic)
        first.begin()
        run_rounds(first, range(1, 4), traffic)
        traffic = {}
        second = new_record(traffic)
        second.read()
        second.keep([2])
        run_rounds(second, range(3, 5), traffic)
        assert second.wire_bytes("a") == WireBytes(training=400, evaluation=40)


class TestStorage:
    def test_says_where_it_cannot_write(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        record = RunRecord(tmp_path / "file" / "h", traffic=dict, forward=ignore_progress)
        with pytest.raises(StorageError, match="cannot write"):
            record.begin()


class TestReplicas:
    """Each finishes its rounds by itself; what is evaluated after one is kept with the next."""

    def record(self, tmp_path: Path, traffic: Traffic) -> RunRecord:
        return RunRecord(
            tmp_path / "h.jsonl",
            traffic=lambda: traffic,
            forward=ignore_progress,
            replica_of={"a": 0, "b": 1},
        )

    def finish(self, record: RunRecord, silo: str, number: int, traffic: Traffic) -> None:
        record(StepDone(silo, number, number - 1, 1.0, 3, 5, applied=True, seconds=0.1))
        record(TurnFinished((silo,), number, 1, 0.25))
        traffic[silo] = traffic.get(silo, WireBytes()) + WireBytes(training=100)
        record(RoundFinished(number, replica={"a": 0, "b": 1}[silo]))
        record(Evaluated(silo, number, 0.5, 7, None))

    def test_go_back_one_by_one(self, tmp_path: Path) -> None:
        traffic: Traffic = {}
        first = self.record(tmp_path, traffic)
        first.begin()
        for silo, number in (("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)):
            self.finish(first, silo, number, traffic)
        assert (first.last_round_of(0), first.last_round_of(1), first.last_round) == (3, 2, 2)

        second = self.record(tmp_path, {})
        second.read()
        second.keep([3, 1])
        third = self.record(tmp_path, {})
        third.read()

        assert {(step.silo, step.round) for step in third.steps} == {("a", 1), ("a", 2), ("a", 3), ("b", 1)}
        assert [found.round for found in third.evaluations if found.silo == "a"] == [1, 2]
        assert second.wire_bytes("a") == WireBytes(training=300)
        assert second.wire_bytes("b") == WireBytes(training=100)

    def test_of_another_job_are_no_rounds_of_this_one(self, tmp_path: Path) -> None:
        traffic: Traffic = {}
        first = self.record(tmp_path, traffic)
        first.begin()
        self.finish(first, "b", 1, traffic)
        single = RunRecord(tmp_path / "h.jsonl", traffic=dict, forward=ignore_progress)
        single.read()
        assert single.last_round == 0
