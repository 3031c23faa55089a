"""Who is believed in a sum: forged, swapped, changed and repeated words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlearn.errors import StorageError, TrunklineError
from splitlearn.identity import CertificateKind, FederationRoot
from splitlearn.privacy import (
    ForgedSumError,
    ReusedSumError,
    RosterMismatchError,
    RosterRefusedError,
    SumError,
    SumMessageError,
    SumRecord,
    SumServer,
)
from splitlearn.privacy.silo import TABLE, SumState
from splitlearn.wire import (
    Message,
    SumConsent,
    SumConsents,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
)
from tests.unit.privacy.conftest import (
    DIGEST,
    JOB,
    NAMES,
    NOW,
    Member,
    blocks,
    carry,
    federation,
    identity,
    silo,
    words_of,
)


def server(names: tuple[str, ...] = NAMES, *, round_number: int = 1, step: int = 4) -> SumServer:
    return SumServer(names, round_number=round_number, step=step)


def no_word_left(members: dict[str, Member]) -> bool:
    return not any(member.parts for member in members.values())


def showing(change: Callable[[SumRoster], SumRoster], to: str = "ada") -> Callable[[str, Message], Message]:
    """Show one silo another roster than the rest."""

    def bend(name: str, message: Message) -> Message:
        return change(message) if name == to and isinstance(message, SumRoster) else message

    return bend


def with_member(index: int, **changes: Any) -> Callable[[SumRoster], SumRoster]:
    """Change one member's words in a roster."""

    def change(roster: SumRoster) -> SumRoster:
        members = list(roster.members)
        members[index] = words_of(members[index], **changes)
        return SumRoster(attempt=roster.attempt, members=tuple(members))

    return change


class TestRoster:
    def test_shown_differently_to_two_silos_is_refused_by_both(self, tmp_path: Path) -> None:
        """The server leaves dora out of what ada sees. Every word in it is genuine."""
        members = federation(tmp_path)
        refused: dict[str, TrunklineError] = {}

        def without_dora(name: str, message: Message) -> Message:
            if name == "ada" and isinstance(message, SumRoster):
                return SumRoster(attempt=message.attempt, members=message.members[:3])
            return message

        leader = server()
        carry(
            leader,
            members,
            to_silo=without_dora,
            to_server=lambda _, m: None if isinstance(m, SumConsent) else m,
        )
        consents = {name: member.sent[-1] for name, member in members.items()}
        assert all(isinstance(consent, SumConsent) for consent in consents.values())
        signatures = tuple(consents[name].signature for name in NAMES)  # type: ignore[union-attr]
        for name, member in members.items():
            shown = signatures[:3] if name == "ada" else signatures
            with pytest.raises(
                RosterMismatchError, match="has not signed the roster that was shown"
            ) as caught:
                member.side.accept(SumConsents(signatures=shown, seed=None), member.tensors)
            refused[name] = caught.value
        assert set(refused) == set(NAMES)
        assert no_word_left(members)

    def test_of_fewer_than_three_is_refused(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        two = showing(lambda roster: SumRoster(attempt=roster.attempt, members=roster.members[:2]))
        with pytest.raises(RosterRefusedError, match=r"2 members, this silo takes part from 3 on"):
            carry(server(), members, to_silo=two)
        assert no_word_left(members)

    def test_of_fewer_than_a_silo_asks_for_is_refused(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        members["bert"].side = silo("bert", tmp_path, min_silos=4)
        names = ("ada", "bert", "carl")
        with pytest.raises(RosterRefusedError, match=r"3 members, this silo takes part from 4 on") as caught:
            carry(server(names), members)
        assert caught.value.public == "the secure sum has 3 members, this silo takes part from 4 on"

    def test_cannot_be_allowed_below_three(self, tmp_path: Path) -> None:
        with pytest.raises(RosterRefusedError, match="min_silos_in_sum is 2"):
            silo("ada", tmp_path, min_silos=2)
        with pytest.raises(RosterRefusedError, match="the job has 4 silos"):
            silo("ada", tmp_path, min_silos=5)

    @pytest.mark.parametrize(
        ("change", "error", "sentence"),
        [
            (
                lambda r: SumRoster(attempt=r.attempt, members=r.members[::-1]),
                RosterRefusedError,
                "in its order",
            ),
            (
                lambda r: SumRoster(attempt=r.attempt, members=(r.members[0], *r.members)),
                RosterRefusedError,
                "each once",
            ),
            (
                lambda r: SumRoster(attempt=r.attempt, members=r.members[1:]),
                RosterRefusedError,
                "does not hold what this silo said",
            ),
            (lambda r: SumRoster(attempt=2, members=r.members), RosterRefusedError, "is of attempt 2"),
            (with_member(0, num_tokens=9), RosterRefusedError, "does not hold what this silo said"),
            (with_member(1, num_tokens=9), ForgedSumError, "words of silo 'bert' in the sum are not its own"),
            (with_member(2, key=bytes(range(32))), ForgedSumError, "words of silo 'carl'"),
            (with_member(1, next_attempt=7), ForgedSumError, "words of silo 'bert'"),
            (with_member(1, num_words=13), ForgedSumError, "words of silo 'bert'"),
            (with_member(3, signature=bytes(64)), ForgedSumError, "words of silo 'dora'"),
            (with_member(3, certificate=b"nothing"), ForgedSumError, "shows no certificate"),
        ],
    )
    def test_changed_by_the_server_is_refused(
        self,
        tmp_path: Path,
        change: Callable[[SumRoster], SumRoster],
        error: type[SumError],
        sentence: str,
    ) -> None:
        members = federation(tmp_path)
        with pytest.raises(error, match=sentence):
            carry(server(), members, to_silo=showing(change))
        assert no_word_left(members)
        assert members["ada"].side.state is SumState.IDLE

    @pytest.mark.parametrize(
        ("root", "kind"), [(FederationRoot.generate(), CertificateKind.SILO), (None, CertificateKind.WORKER)]
    )
    def test_with_a_member_that_the_federation_has_not_certified_as_a_silo_is_refused(
        self, tmp_path: Path, root: FederationRoot | None, kind: CertificateKind
    ) -> None:
        """The server invents a silo, so that three of four members are its own."""
        invented = identity("dora", kind=kind) if root is None else identity("dora", root=root, kind=kind)
        members = federation(tmp_path)
        members["dora"].side = silo("dora", tmp_path, identity=invented)
        with pytest.raises(ForgedSumError, match="words of silo 'dora'"):
            carry(server(), members)
        assert no_word_left(members)

    def test_with_a_key_of_low_order_is_refused(self, tmp_path: Path) -> None:
        """Such a key would give a secret that everybody knows."""
        members = federation(tmp_path)

        class LowOrder:
            def public_key(self) -> "LowOrder":
                return self

            def public_bytes_raw(self) -> bytes:
                return bytes(32)

        members["bert"].side = silo("bert", tmp_path, private_key=LowOrder())
        with pytest.raises(ForgedSumError, match="sum key of silo 'bert' is of low order"):
            carry(server(), members)
        assert no_word_left(members)

    def test_of_blocks_of_different_sizes_is_refused(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        members["dora"].tensors.pop()
        with pytest.raises(SumMessageError, match=r"different sizes: \[5, 12\] words"):
            carry(server(), members)


class TestConsents:
    def consented(self, tmp_path: Path) -> tuple[dict[str, Member], list[tuple[str, SumConsents]]]:
        members = federation(tmp_path)
        kept: list[tuple[str, SumConsents]] = []

        def keep(name: str, message: Message) -> Message | None:
            if isinstance(message, SumConsents):
                kept.append((name, message))
                return None
            return message

        carry(server(), members, to_silo=keep)
        return members, kept

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_with_any_bit_flipped_are_refused(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        members, kept = self.consented(tmp_path_factory.mktemp("consents"))
        name, consents = kept[data.draw(st.integers(1, 3), label="member")]
        parts = [*consents.signatures, consents.seed or b""]
        index = data.draw(st.integers(0, len(parts) - 1), label="part")
        bit = data.draw(st.integers(0, 8 * len(parts[index]) - 1), label="bit")
        flipped = bytearray(parts[index])
        flipped[bit // 8] ^= 1 << bit % 8
        parts[index] = bytes(flipped)
        with pytest.raises((RosterMismatchError, ForgedSumError)):
            members[name].side.accept(
                SumConsents(signatures=tuple(parts[:-1]), seed=parts[-1]), members[name].tensors
            )
        assert no_word_left(members)

    def test_of_others_than_the_members_are_refused(self, tmp_path: Path) -> None:
        members, kept = self.consented(tmp_path)
        (ada, of_ada), (bert, of_bert), (carl, of_carl), (dora, of_dora) = kept
        with pytest.raises(RosterMismatchError, match="3 consents came for a roster of 4"):
            members[ada].side.accept(
                SumConsents(signatures=of_ada.signatures[1:], seed=None), members[ada].tensors
            )
        with pytest.raises(RosterMismatchError, match="silo 'ada' has not signed"):
            members[bert].side.accept(
                SumConsents(signatures=of_bert.signatures[::-1], seed=of_bert.seed), members[bert].tensors
            )
        with pytest.raises(ForgedSumError, match="no seed"):
            members[carl].side.accept(
                SumConsents(signatures=of_carl.signatures, seed=None), members[carl].tensors
            )
        with pytest.raises(ForgedSumError, match="not what silo 'ada' sealed"):
            members[dora].side.accept(
                SumConsents(signatures=of_dora.signatures, seed=of_carl.seed), members[dora].tensors
            )
        assert no_word_left(members)

    def test_of_an_earlier_sum_are_refused(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        first: list[SumConsents] = []

        def keep(_: str, message: Message) -> Message:
            first.extend([message] if isinstance(message, SumConsents) else [])
            return message

        carry(server(), members, to_silo=keep)
        later = server(step=8)
        replayed = dict(zip(NAMES, first, strict=True))
        with pytest.raises(RosterMismatchError):
            carry(
                later,
                members,
                to_silo=lambda name, m: replayed[name] if isinstance(m, SumConsents) else m,
            )


class TestReuse:
    def test_a_roster_is_never_summed_twice(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        rosters: list[SumRoster] = []

        def keep(name: str, message: Message) -> Message:
            rosters.extend([message] if name == "ada" and isinstance(message, SumRoster) else [])
            return message

        carry(server(), members, to_silo=keep)
        carry(server(), members, to_silo=keep)
        assert [roster.attempt for roster in rosters] == [1, 2]
        # With the first attempt's roster ada's own words are older ones, whatever else it holds.
        ada = members["ada"].side
        ada.begin(SumStart(round=1, step=4), num_tokens=10, num_words=12)
        with pytest.raises(RosterRefusedError, match="does not hold what this silo said"):
            ada.consent(rosters[0], now=NOW)

    def test_an_attempt_survives_a_restart(self, tmp_path: Path) -> None:
        carry(server(), federation(tmp_path))
        again = federation(tmp_path)
        carry(server(), again)
        [key] = [message for message in again["ada"].sent if isinstance(message, SumKey)]
        assert key.next_attempt == 2
        assert again["ada"].total is not None

    def test_the_same_values_are_not_summed_over_another_roster(self, tmp_path: Path) -> None:
        """After a rollback the silos stand where they stood; a server that left dora out could subtract."""
        carry(server(), federation(tmp_path))
        again = federation(tmp_path)
        with pytest.raises(
            ReusedSumError, match=r"round 1 after 4 steps were summed before, over other silos"
        ):
            carry(server(("ada", "bert", "carl")), again)
        assert no_word_left(again)

    def test_after_an_unfinished_sum_the_next_is_over_the_same_silos(self, tmp_path: Path) -> None:
        """Else a trunk could get all words, say that dora was lost, keep the values still, and sum again."""
        members = federation(tmp_path)
        leader = server()
        carry(leader, members, to_silo=lambda _, m: None if isinstance(m, SumTotal | SumEnd) else m)
        assert all(member.parts for member in members.values())
        again = federation(tmp_path)
        with pytest.raises(ReusedSumError, match="the last sum was not finished"):
            carry(server(("ada", "bert", "carl"), step=8), again)
        assert no_word_left(again)
        carry(server(step=8), federation(tmp_path))
        carry(server(("ada", "bert", "carl"), step=12), federation(tmp_path))

    def test_the_record_is_written_before_a_word_leaves(self, tmp_path: Path) -> None:
        members = federation(tmp_path)
        for member in members.values():
            member.side._record._path.mkdir()  # where the file should go, so that it cannot be written
        with pytest.raises(StorageError, match="cannot write"):
            carry(server(), members)
        assert no_word_left(members)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"{", "is no record of secure sums; restore it"),
            (b'{"job": "job-1", "spec_digest": "%s"}' % (b"0" * 64), "give this job a folder of its own"),
        ],
    )
    def test_a_record_that_is_torn_or_of_another_job_is_refused(
        self, tmp_path: Path, content: bytes, sentence: str
    ) -> None:
        path = tmp_path / "ada.json"
        path.write_bytes(content)
        with pytest.raises(StorageError, match=sentence):
            SumRecord(path, job=JOB, spec_digest=DIGEST)

    def test_attempts_end(self, tmp_path: Path) -> None:
        path = tmp_path / "ada.json"
        path.write_text(f'{{"job": "{JOB}", "spec_digest": "{DIGEST.hex()}", "last_attempt": {2**32 - 2}}}')
        with pytest.raises(ReusedSumError, match="used up"):
            silo("ada", tmp_path).begin(SumStart(round=1, step=4), num_tokens=1, num_words=1)

    def test_a_key_seals_one_seed_even_where_no_word_was_sent(self, tmp_path: Path) -> None:
        """A server that gives every sum up before it begins sees no two seeds under one key."""
        members = federation(tmp_path)
        attempts = []
        for _ in range(3):
            leader = server()
            carry(leader, members, to_server=lambda _, m: None if isinstance(m, SumConsent) else m)
            shown = members["ada"].received[-1]
            assert isinstance(shown, SumRoster)
            attempts.append(shown.attempt)
            carry(leader, members, first=leader.give_up())
        assert attempts == [1, 2, 3]
        assert no_word_left(members)


MESSAGES: dict[type[Message], Message] = {
    SumStart: SumStart(round=1, step=4),
    SumRoster: SumRoster(attempt=1, members=()),
    SumConsents: SumConsents(signatures=(), seed=None),
    SumEnd: SumEnd(averaged=True),
}


class TestTable:
    def standing(self, state: SumState, folder: Path) -> Member:
        """A silo brought to a state by a genuine sum."""
        members = federation(folder)
        stops: dict[SumState, tuple[type[Message], ...]] = {
            SumState.IDLE: (SumStart,),
            SumState.KEYED: (SumRoster,),
            SumState.CONSENTED: (SumConsents,),
            SumState.SUMMING: (SumTotal, SumEnd),
        }
        carry(server(), members, to_silo=lambda _, m: None if isinstance(m, stops[state]) else m)
        assert members["ada"].side.state is state
        return members["ada"]

    @pytest.mark.parametrize("state", SumState)
    @pytest.mark.parametrize("kind", MESSAGES)
    def test_refuses_what_it_does_not_hold(
        self, state: SumState, kind: type[Message], tmp_path: Path
    ) -> None:
        member = self.standing(state, tmp_path)
        if (state, kind) in TABLE:
            return
        with pytest.raises(
            SumMessageError, match=f"{kind.__name__} has no place in a sum that is {state.value}"
        ):
            member.hear(MESSAGES[kind])
        assert member.side.state is SumState.IDLE

    def test_a_silo_that_refused_sends_nothing_more(self, tmp_path: Path) -> None:
        member = self.standing(SumState.SUMMING, tmp_path)
        with pytest.raises(SumMessageError):
            member.hear(SumStart(round=1, step=5))
        assert not member.side.has_parts
        with pytest.raises(AssertionError, match="nothing is loaded"):
            member.side.next_part()

    def test_parts_are_masked_once(self, tmp_path: Path) -> None:
        member = Member(silo("ada", tmp_path), blocks(0), num_tokens=1)
        assert not member.side.has_parts
        standing = self.standing(SumState.SUMMING, tmp_path)
        assert [type(part) for part in standing.parts] == [SumPart]
        assert not standing.side.has_parts
