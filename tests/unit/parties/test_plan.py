"""Who trains when."""

from splitlearn.parties.plan import Turn, evaluates_after, turns_of_round
from tests.unit.parties.conftest import job


def order(*silos: str, round_number: int = 1, **fields: object) -> list[tuple[str, int, int]]:
    spec = job(*silos, schedule="serial", rounds=4, **fields)
    turns = list(turns_of_round(spec, round_number))
    assert all(turn.round == round_number for turn in turns)
    return [("".join(turn.silos), turn.first_step, turn.num_steps) for turn in turns]


class TestClientBatching:
    def test_is_one_turn_of_all_in_the_rosters_order(self) -> None:
        spec = job("c", "a", "b", rounds=3, steps_per_round=5)
        assert [list(turns_of_round(spec, number)) for number in (1, 2, 3)] == [
            [Turn(number, ("c", "a", "b"), (number - 1) * 5, 5)] for number in (1, 2, 3)
        ]


class TestSerial:
    def test_gives_each_silo_its_whole_round_at_once(self) -> None:
        assert order("a", "b", "c", steps_per_round=4) == [("a", 0, 4), ("b", 4, 4), ("c", 8, 4)]

    def test_begins_each_round_with_another_silo(self) -> None:
        begun = [
            order("a", "b", "c", steps_per_round=2, round_number=number)[0][0] for number in (1, 2, 3, 4)
        ]
        assert begun == ["a", "b", "c", "a"]

    def test_counts_steps_over_all_silos_and_rounds(self) -> None:
        assert order("a", "b", steps_per_round=3, round_number=3) == [("a", 12, 3), ("b", 15, 3)]

    def test_interleaves_turns_and_ends_with_a_short_one(self) -> None:
        assert order("a", "b", steps_per_round=5, turn_steps=2, round_number=2) == [
            ("b", 10, 2),
            ("a", 12, 2),
            ("b", 14, 2),
            ("a", 16, 2),
            ("b", 18, 1),
            ("a", 19, 1),
        ]

    def test_of_one_silo_is_its_turns(self) -> None:
        assert order("a", steps_per_round=3, turn_steps=2) == [("a", 0, 2), ("a", 2, 1)]

    def test_covers_every_step_of_the_job_once(self) -> None:
        spec = job("a", "b", "c", schedule="serial", rounds=4, steps_per_round=5, turn_steps=3)
        turns = [turn for number in range(1, 5) for turn in turns_of_round(spec, number)]
        steps = [turn.first_step + index for turn in turns for index in range(turn.num_steps)]
        assert steps == list(range(spec.total_steps))


class TestLostSilo:
    def test_is_left_out_of_the_batch(self) -> None:
        spec = job("c", "a", "b", rounds=3, steps_per_round=5)
        assert list(turns_of_round(spec, 2, present={"b", "c"})) == [Turn(2, ("c", "b"), 5, 5)]

    def test_leaves_a_gap_in_the_turns_and_the_others_where_they_were(self) -> None:
        spec = job("a", "b", "c", schedule="serial", steps_per_round=2)
        whole = list(turns_of_round(spec, 1))
        assert list(turns_of_round(spec, 1, present={"a", "c"})) == [whole[0], whole[2]]


class TestEvaluation:
    def test_is_always_after_the_last_round(self) -> None:
        spec = job("a", rounds=3)
        assert [evaluates_after(spec, number) for number in (1, 2, 3)] == [False, False, True]

    def test_is_after_every_nth(self) -> None:
        spec = job("a", rounds=5, evaluation={"every_rounds": 2})
        assert [evaluates_after(spec, number) for number in range(1, 6)] == [False, True, False, True, True]
