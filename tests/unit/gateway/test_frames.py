"""Only frames that fit the ticket pass, whatever they hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.gateway import Refusal, Role, Ticket
from backend.gateway.frames import FrameCheck
from splitlearn.link import CloseReason
from splitlearn.wire import Direction, Kind, job_tag
from tests.unit.gateway.conftest import NOW, TALK, frame

CHECK = FrameCheck(Ticket(TALK, Role.SILO, NOW))


class TestCheck:
    @pytest.mark.parametrize("kind", list(Kind))
    @pytest.mark.parametrize("role", list(Role))
    def test_lets_what_is_due_pass(self, role: Role, kind: Kind) -> None:
        FrameCheck(Ticket(TALK, role, NOW)).check(frame(role, kind=kind))

    @pytest.mark.parametrize(
        "changes",
        [
            {"direction": Direction.TRUNK_TO_SILO},
            {"replica": TALK.replica + 1},
            {"epoch": TALK.epoch + 1},
            {"epoch": TALK.epoch - 1},
            {"job_tag": job_tag("another")},
            {"body_bytes": 5},
            {"body_bytes": 7},
        ],
        ids=str,
    )
    def test_refuses_what_does_not_fit(self, changes: dict[str, Any]) -> None:
        with pytest.raises(Refusal) as refusal:
            CHECK.check(frame(Role.SILO, **changes))
        assert refusal.value.reason is CloseReason.BAD_FRAME

    @given(junk=st.binary(max_size=200))
    def test_refuses_what_is_no_frame(self, junk: bytes) -> None:
        with pytest.raises(Refusal) as refusal:
            CHECK.check(junk)
        assert refusal.value.reason is CloseReason.BAD_FRAME
