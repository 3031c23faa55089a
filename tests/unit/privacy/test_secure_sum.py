"""The sum as a whole: what comes out, who may be lost when, and what it refuses."""

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlearn.privacy import (
    FixedPointError,
    RosterRefusedError,
    ServerState,
    SumMessageError,
    SumServer,
    decode,
)
from splitlearn.wire import PART_WORDS, Message, SumEnd, SumPart, SumTotal
from tests.unit.privacy.conftest import (
    FRACTION_BITS,
    NAMES,
    Member,
    blocks,
    carry,
    federation,
    silo,
)


def server(names: tuple[str, ...] = NAMES, **fields: int) -> SumServer:
    return SumServer(names, round_number=1, step=4, **fields)


def exact_mean(members: dict[str, Member]) -> list[Fraction]:
    """The token-weighted mean of all values, without any rounding."""
    total = sum(member.num_tokens for member in members.values())
    vectors = [
        (Fraction(member.num_tokens, total), np.concatenate([values for _, values in member.tensors]))
        for member in members.values()
    ]
    return [
        sum((weight * Fraction(float(vector[index])) for weight, vector in vectors), Fraction(0))
        for index in range(len(vectors[0][1]))
    ]


def largest_error(members: dict[str, Member], *, fraction_bits: int = FRACTION_BITS) -> Fraction:
    """The largest distance of any member's result from the exact mean, in fixed-point steps."""
    exact = exact_mean(members)
    step = Fraction(1, 2**fraction_bits)
    worst = Fraction(0)
    for member in members.values():
        assert member.total is not None
        found = decode(member.total, fraction_bits=fraction_bits)
        for value, wanted in zip(found, exact, strict=True):
            worst = max(worst, abs(Fraction(float(value)) - wanted) / step)
    return worst


class TestSum:
    @settings(max_examples=25, deadline=None)
    @given(
        data=st.data(),
        num_silos=st.integers(3, 8),
        fraction_bits=st.integers(8, 24),
        num_words=st.integers(1, 9),
    )
    def test_is_the_token_weighted_mean_within_half_a_step_per_silo(
        self, data: st.DataObject, num_silos: int, fraction_bits: int, num_words: int
    ) -> None:
        names = tuple(f"silo-{index}" for index in range(num_silos))
        limit = min(
            1e4, float(np.nextafter(np.float32((2**31 // num_silos) / 2**fraction_bits), np.float32(0)))
        )
        values = st.lists(st.floats(-limit, limit, width=32), min_size=num_words, max_size=num_words)
        with tempfile.TemporaryDirectory() as folder:
            members = {
                name: Member(
                    silo(name, Path(folder), names, fraction_bits=fraction_bits),
                    [np.array(data.draw(values), np.float32)],
                    num_tokens=data.draw(st.integers(0 if index else 1, 2**20)),
                )
                for index, name in enumerate(names)
            }
            carry(server(names), members)
        # Half a step per silo is the rounding to a word; 2^-20 of one covers float64's division before it,
        # whose relative error of 2^-53 is at most 2^-22 of a step on words below 2^31.
        assert largest_error(members, fraction_bits=fraction_bits) <= Fraction(num_silos, 2) + Fraction(
            num_silos, 2**20
        )

    def test_gives_every_member_the_same_words(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        carry(server(), members)
        totals = [member.total for member in members.values() if member.total is not None]
        assert len(totals) == len(NAMES)
        assert all(np.array_equal(total, totals[0]) for total in totals)

    def test_of_many_parts_stays_within_the_window(self, tmp_path: Path) -> None:
        sizes = (PART_WORDS, PART_WORDS + 3, 1)
        members = {
            name: Member(silo(name, tmp_path), blocks(index, sizes=sizes), num_tokens=3)
            for index, name in enumerate(NAMES)
        }
        carry(server(), members)
        assert [len(member.parts) for member in members.values()] == [3] * 4
        expected = np.mean(
            [np.concatenate([v.astype(np.float64) for _, v in m.tensors]) for m in members.values()], axis=0
        )
        total = members["ada"].total
        assert total is not None
        assert (
            np.abs(decode(total, fraction_bits=FRACTION_BITS) - expected).max() <= 2.01 * 2.0**-FRACTION_BITS
        )

    def test_a_silo_without_tokens_counts_for_nothing(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        members["bert"].num_tokens = 0
        carry(server(), members)
        assert largest_error(members) <= Fraction(201, 100)

    def test_is_given_up_where_nobody_learned_anything(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        for member in members.values():
            member.num_tokens = 0
        leader = server()
        carry(leader, members)
        assert leader.state is ServerState.OVER
        assert not leader.averaged
        assert not any(member.parts for member in members.values())

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1e9])
    def test_names_the_tensor_that_does_not_fit_and_sends_nothing(self, tmp_path: Path, value: float) -> None:
        members = federation(tmp_path)
        members["carl"].tensors[1][1][2] = value
        with pytest.raises(FixedPointError, match="the tensor layer-1 changed by"):
            carry(server(), members)
        assert not members["carl"].parts

    def test_takes_the_largest_value_that_fits_and_not_the_next(self, tmp_path: Path) -> None:
        """At equal weights 1/4 the word is value x 2^22, and its limit is (2^31 - 1) // 4."""
        limit = ((2**31 - 1) // 4) / 2**22
        largest = np.nextafter(np.float32(128), np.float32(0))  # words are whole: 2^29 - 32
        assert largest * 2**22 <= limit * 2**22
        members = {
            name: Member(silo(name, tmp_path), [np.full(3, largest, np.float32)], num_tokens=5)
            for name in NAMES
        }
        carry(server(), members)
        total = members["ada"].total
        assert total is not None
        assert set(decode(total, fraction_bits=FRACTION_BITS)) == {float(largest)}
        members["ada"].tensors[0][1][1] = np.float32(128)
        with pytest.raises(FixedPointError, match="must lie below"):
            carry(server(), members)


class TestDropOut:
    def test_before_any_word_was_sent_shrinks_the_roster(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        leader = server()
        lost: list[Message] = []

        def without_doras_consent(name: str, message: Message) -> Message | None:
            if name == "dora" and type(message).__name__ == "SumConsent":
                lost.append(message)
                return None
            return message

        carry(leader, members, to_server=without_doras_consent)
        assert lost
        assert leader.state is ServerState.CONSENTS
        assert leader.due == ("dora",)
        del members["dora"]
        carry(leader, members, first=leader.drop("dora"))
        assert leader.averaged
        assert leader.members == ("ada", "bert", "carl")
        assert largest_error(members) <= Fraction(151, 100)

    def test_after_a_word_was_sent_nobody_averages(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        leader = server()
        carry(leader, members, to_server=lambda name, m: None if (name, type(m)) == ("dora", SumPart) else m)
        assert leader.state.value == "summing"
        assert leader.due == ("dora",)
        del members["dora"]
        carry(leader, members, first=leader.drop("dora"))
        assert leader.state is ServerState.OVER
        assert not leader.averaged
        assert [member.gave_up for member in members.values()] == [1, 1, 1]
        assert all(member.total is None for member in members.values())

    def test_below_the_least_number_of_silos_ends_the_sum(self, tmp_path: Path) -> None:
        members = federation(tmp_path, ("ada", "bert", "carl"))
        leader = server(("ada", "bert", "carl"))
        carry(leader, members, to_server=lambda name, m: None if name == "carl" else m)
        del members["carl"]
        carry(leader, members, first=leader.drop("carl"))
        assert leader.state is ServerState.OVER
        assert not any(member.parts for member in members.values())

    def test_a_word_that_was_on_its_way_when_the_sum_was_given_up_is_ignored(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        leader = server()
        late: list[tuple[str, Message]] = []

        def later(name: str, message: Message) -> Message | None:
            if name == "ada" and isinstance(message, SumPart):
                late.append((name, message))
                return None
            return message

        carry(leader, members, to_server=later)
        goodbyes = leader.drop("dora")
        assert {type(message) for _, message in goodbyes} == {SumEnd}
        assert leader.receive("ada", late[0][1]) == []  # type: ignore[arg-type]
        del members["dora"]
        carry(leader, members, first=goodbyes)
        assert leader.state is ServerState.OVER


class TestServer:
    def test_refuses_fewer_than_three(self) -> None:
        with pytest.raises(RosterRefusedError, match="over 2 silos is refused; it takes 3"):
            server(("ada", "bert"))
        with pytest.raises(RosterRefusedError, match="it takes 5"):
            server(min_silos=5)

    def test_refuses_a_part_out_of_order_twice_or_of_another_size(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        leader = server()
        carry(leader, members, to_server=lambda _, m: None if isinstance(m, SumPart) else m)
        part = members["ada"].parts[0]
        with pytest.raises(SumMessageError, match="due were 12 words at 0"):
            leader.receive("ada", SumPart(offset=1, words=part.words))
        with pytest.raises(SumMessageError, match="sent 11 words at 0"):
            leader.receive("ada", SumPart(offset=0, words=part.words[1:]))
        assert leader.receive("ada", part) == []
        with pytest.raises(SumMessageError, match="due were 0 words at 12"):
            leader.receive("ada", part)

    def test_refuses_a_stranger_and_a_word_before_its_time(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        leader = server()
        [key] = members["ada"].hear(leader.begin()[0][1])
        with pytest.raises(SumMessageError, match="silo 'bert' showed the certificate of 'ada'"):
            leader.receive("bert", key)  # type: ignore[arg-type]
        with pytest.raises(SumMessageError, match="silo 'emil' has no place"):
            leader.receive("emil", key)  # type: ignore[arg-type]
        with pytest.raises(SumMessageError, match="SumPart of silo 'ada' has no place in a sum that is keys"):
            leader.receive("ada", SumPart(offset=0, words=np.zeros(12, np.uint32)))
        leader.receive("ada", key)  # type: ignore[arg-type]
        with pytest.raises(SumMessageError, match="said SumKey twice"):
            leader.receive("ada", key)  # type: ignore[arg-type]

    def test_holds_no_more_than_a_few_parts_of_a_silo_that_runs_ahead(self, tmp_path: Path) -> None:
        members = {
            name: Member(silo(name, tmp_path), [np.zeros(6 * PART_WORDS, np.float32)], num_tokens=1)
            for name in NAMES
        }
        leader = server()
        carry(leader, members, to_server=lambda _, m: None if isinstance(m, SumPart) else m)
        ada = members["ada"].side
        parts = [members["ada"].parts[0], *(ada.next_part() for _ in range(4))]
        for part in parts[:4]:
            assert leader.receive("ada", part) == []
        with pytest.raises(SumMessageError, match="ahead of the slowest member"):
            leader.receive("ada", parts[4])


class TestSilo:
    def test_refuses_a_sum_that_lacks_a_part(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        with pytest.raises(SumMessageError, match="parts of it never came"):
            carry(server(), members, to_silo=lambda _, m: None if isinstance(m, SumTotal) else m)

    def test_refuses_a_part_of_the_sum_twice(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        totals: list[Message] = []

        def keep(_: str, message: Message) -> Message | None:
            totals.extend([message] if isinstance(message, SumTotal) else [])
            return None if isinstance(message, SumEnd) else message

        carry(server(), members, to_silo=keep)
        with pytest.raises(SumMessageError, match="due were 0 words at 12"):
            members["ada"].side.take(totals[0])  # type: ignore[arg-type]
