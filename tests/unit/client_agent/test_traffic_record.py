from pathlib import Path

from client_agent.places import JobFolder
from client_agent.traffic_record import Crossed, Tally, TrafficRecord


def crossed(num_bytes: int) -> Crossed:
    return Crossed(wire_bytes=num_bytes, eval_wire_bytes=2 * num_bytes, resent_messages=1)


class TestTrafficRecord:
    def test_survives_on_disk(self, tmp_path: Path) -> None:
        record = TrafficRecord().with_round(1, crossed(5))
        record.write(tmp_path / "t.json")
        assert TrafficRecord.read(tmp_path / "t.json") == record

    def test_is_empty_where_the_file_is_torn(self, tmp_path: Path) -> None:
        (tmp_path / "t.json").write_text('{"rounds": {')
        assert TrafficRecord.read(tmp_path / "t.json") == TrafficRecord()

    def test_counts_on_from_the_round_before(self) -> None:
        record = TrafficRecord().with_round(1, crossed(5)).with_round(2, crossed(9))
        assert record.before(2) == crossed(5)

    def test_counts_from_nothing_before_the_first_round(self) -> None:
        assert TrafficRecord().before(1) == Crossed()

    def test_forgets_a_future_that_was_given_up(self) -> None:
        record = TrafficRecord().with_round(1, crossed(5)).with_round(2, crossed(9)).with_round(1, crossed(6))
        assert record.rounds == {1: crossed(6)}

    def test_keeps_as_many_rounds_as_there_are_checkpoints_to_go_back_to(self) -> None:
        record = TrafficRecord()
        for number in range(1, 9):
            record = record.with_round(number, crossed(number))
        assert record.before(7) == crossed(6)
        assert len(record.rounds) == 3


class TestCrossed:
    def test_adds_field_by_field(self) -> None:
        assert crossed(1).plus(crossed(2)) == Crossed(wire_bytes=3, eval_wire_bytes=6, resent_messages=2)


class TestTally:
    """Rounds and meetings in turns, as a silo of several replicas goes through them."""

    def after_round(self, folder: JobFolder, number: int, num_bytes: int) -> int:
        tally = Tally.of_rounds(folder)
        tally.begin(number)
        tally.begin(number + 7)  # a later turn of the same attempt
        return tally.end(number, crossed(num_bytes)).wire_bytes

    def after_meeting(self, folder: JobFolder, number: int, num_bytes: int) -> int:
        return Tally.of_meetings(folder).end(number, crossed(num_bytes)).wire_bytes

    def test_adds_up_both(self, tmp_path: Path) -> None:
        folder = JobFolder(tmp_path)
        assert self.after_round(folder, 1, 5) == 5
        assert self.after_meeting(folder, 1, 100) == 105
        assert self.after_round(folder, 2, 7) == 112
        assert self.after_meeting(folder, 2, 100) == 212

    def test_counts_once_what_is_begun_again(self, tmp_path: Path) -> None:
        folder = JobFolder(tmp_path)
        for _ in range(2):
            self.after_round(folder, 1, 5)
            self.after_meeting(folder, 1, 100)
        assert self.after_meeting(folder, 1, 101) == 106
        assert self.after_round(folder, 2, 7) == 113
        assert self.after_round(folder, 2, 8) == 114
