"""Epochs only grow, a revocation holds until a higher one, and memory is bounded."""

import pytest

from backend.gateway import Role, Seat, Standing, Ticket
from backend.gateway.standings import Standings
from splitlearn.link import CloseReason
from tests.unit.gateway.conftest import NOW, TALK

TICKET = Ticket(TALK, Role.SILO, NOW)
EPOCH = TALK.epoch


def standings(*known: Standing, max_remembered: int = 100) -> Standings:
    made = Standings(max_remembered=max_remembered)
    for standing in known:
        made.learn(standing)
    return made


class TestObjection:
    @pytest.mark.parametrize(
        ("epoch", "revoked", "expected"),
        [
            (EPOCH - 1, False, None),
            (EPOCH, False, None),
            (EPOCH + 1, False, CloseReason.SUPERSEDED),
            (EPOCH - 1, True, None),
            (EPOCH, True, CloseReason.REVOKED),
            (EPOCH + 1, True, CloseReason.REVOKED),
        ],
    )
    def test_compares_epochs(self, epoch: int, revoked: bool, expected: CloseReason | None) -> None:  # noqa: FBT001
        known = standings(Standing(TICKET.seat, epoch, is_revoked=revoked))
        assert known.objection(TICKET) is expected

    def test_has_none_to_an_unknown_seat(self) -> None:
        assert standings().objection(TICKET) is None

    @pytest.mark.parametrize(
        "seat",
        [
            Seat("other", 1, Role.SILO, "clinic"),
            Seat("tumours-7", 0, Role.SILO, "clinic"),
            Seat("tumours-7", 1, Role.WORKER, "clinic"),
            Seat("tumours-7", 1, Role.SILO, "other"),
        ],
    )
    def test_leaves_other_seats_alone(self, seat: Seat) -> None:
        assert standings(Standing(seat, EPOCH + 1, is_revoked=True)).objection(TICKET) is None


class TestLearn:
    def test_never_goes_back(self) -> None:
        known = standings(Standing(TICKET.seat, EPOCH + 1), Standing(TICKET.seat, EPOCH))
        assert known.objection(TICKET) is CloseReason.SUPERSEDED

    def test_a_ticket_gives_no_revoked_seat_back(self) -> None:
        known = standings(Standing(TICKET.seat, EPOCH, is_revoked=True))
        known.learn_from(TICKET)
        assert known.objection(TICKET) is CloseReason.REVOKED

    def test_forgets_those_longest_unheard_of(self) -> None:
        seats = [Seat(f"job-{number}", 1, Role.SILO, "clinic") for number in range(2)]
        known = standings(Standing(TICKET.seat, EPOCH + 1), max_remembered=2)
        known.learn(Standing(seats[0], 1))
        known.learn(Standing(TICKET.seat, EPOCH + 1))  # heard of again
        known.learn(Standing(seats[1], 1))
        assert known.objection(TICKET) is CloseReason.SUPERSEDED
        known.learn(Standing(seats[0], 1))
        known.learn(Standing(seats[1], 1))
        assert known.objection(TICKET) is None
