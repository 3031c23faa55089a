"""Who trains when."""

from splitlearn.parties.plan import (
    Turn,
    averages_after,
    evaluates_after,
    evaluates_finished,
    turns_of_round,
)
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

    def test_is_before_step_1_unless_left_out(self) -> None:
        assert evaluates_after(job("a"), 0)
        assert not evaluates_after(job("a", evaluation={"before_training": False, "every_rounds": 1}), 0)

    def test_is_after_every_nth(self) -> None:
        spec = job("a", rounds=5, evaluation={"every_rounds": 2})
        assert [evaluates_after(spec, number) for number in range(1, 6)] == [False, True, False, True, True]


def shares(num_silos: int, replicas: int) -> list[str]:
    spec = job(*"abcdefghijk"[:num_silos], schedule="hierarchical", replicas=replicas)
    return ["".join(share) for share in spec.shares]


class TestReplicas:
    def test_get_contiguous_shares_as_even_as_may_be(self) -> None:
        assert shares(4, 2) == ["ab", "cd"]
        assert shares(5, 2) == ["abc", "de"]
        assert shares(11, 4) == ["abc", "def", "ghi", "jk"]
        assert shares(3, 3) == ["a", "b", "c"]

    def test_know_every_silo_once(self) -> None:
        spec = job(*"abcde", schedule="hierarchical", replicas=3)
        assert [spec.replica_of(silo.name) for silo in spec.silos] == [0, 0, 1, 1, 2]
        assert job(*"abc").shares == (("a", "b", "c"),)

    def test_batch_their_own_silos_from_the_same_step_on(self) -> None:
        spec = job(*"abc", schedule="hierarchical", replicas=2, rounds=3, steps_per_round=5)
        assert [list(turns_of_round(spec, 2, replica=replica)) for replica in (0, 1)] == [
            [Turn(2, ("a", "b"), 5, 5)],
            [Turn(2, ("c",), 5, 5)],
        ]
        assert spec.total_steps == 15

    def test_let_their_own_silos_take_turns(self) -> None:
        """The replica with one silo is through before the round's last step."""
        spec = job(*"abc", schedule="hierarchical", replicas=2, replica_schedule="serial", steps_per_round=4)
        turns = [list(turns_of_round(spec, 2, replica=replica)) for replica in (0, 1)]
        assert turns == [[Turn(2, ("b",), 8, 4), Turn(2, ("a",), 12, 4)], [Turn(2, ("c",), 8, 4)]]
        assert spec.global_steps_per_round == 8

    def test_without_a_silo_left_train_nothing(self) -> None:
        spec = job(*"ab", schedule="hierarchical", replicas=2)
        assert list(turns_of_round(spec, 1, replica=1, present={"a"})) == []

    def test_average_blocks_once_their_silos_have_done_their_steps(self) -> None:
        fields = {"schedule": "hierarchical", "replicas": 2, "silo_blocks": "averaged", "steps_per_round": 4}
        spec = job(*"abc", **fields)
        [turn] = turns_of_round(spec, 3, replica=1)
        assert averages_after(spec, turn) == 4
        spec = job(*"abc", **fields, replica_schedule="serial")
        for replica, expected in enumerate([[None, 4], [4]]):
            turns = turns_of_round(spec, 3, replica=replica)
            assert [averages_after(spec, turn) for turn in turns] == expected

    def test_are_evaluated_after_their_average(self) -> None:
        assert evaluates_finished(job(*"ab", schedule="hierarchical", replicas=2), 1)
        assert not evaluates_finished(job(*"ab"), 1)

    def test_of_what_the_job_begins_with_leave_nothing_to_be_done(self) -> None:
        assert evaluates_finished(job(*"ab"), 0)
