"""By whose time tickets end."""

from datetime import UTC, datetime, timedelta, timezone

from backend.gateway.told_clock import ToldClock

OWN = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TOLD = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class TestToldClock:
    def test_is_this_machines_before_the_first_word(self) -> None:
        assert ToldClock(own=lambda: OWN)() == OWN

    def test_goes_on_from_the_newest_word(self) -> None:
        seconds = [5.0]
        clock = ToldClock(own=lambda: OWN, steady=lambda: seconds[0])
        clock.tell(OWN)
        clock.tell(TOLD.astimezone(timezone(timedelta(hours=2))))
        seconds[0] += 7
        assert clock() == TOLD + timedelta(seconds=7)
