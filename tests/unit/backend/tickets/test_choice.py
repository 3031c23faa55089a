from collections import Counter
from datetime import UTC, datetime, timedelta

from backend.gateway import Conversation
from backend.tickets.choice import choose, present

GATEWAYS = [f"wss://gateway-{number}.example/relay" for number in range(4)]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def conversations(number: int = 400) -> list[Conversation]:
    return [Conversation(f"job-{each}", 0, "north", "worker", 1) for each in range(number)]


class TestChoose:
    def test_does_not_depend_on_the_order_of_the_setting(self) -> None:
        for conversation in conversations(20):
            assert choose(GATEWAYS, conversation) == choose(GATEWAYS[::-1], conversation)

    def test_spreads_conversations_over_all(self) -> None:
        counted = Counter(choose(GATEWAYS, each) for each in conversations())
        assert set(counted) == set(GATEWAYS)
        assert min(counted.values()) > 400 / 4 / 2

    def test_moves_only_the_conversations_of_one_that_is_away(self) -> None:
        left = GATEWAYS[1:]
        for conversation in conversations():
            before, after = choose(GATEWAYS, conversation), choose(left, conversation)
            assert before == after or before == GATEWAYS[0]

    def test_silos_of_one_job_may_meet_at_different_ones(self) -> None:
        silos = [Conversation("job", 0, f"silo-{number}", "worker", 1) for number in range(30)]
        assert len({choose(GATEWAYS, each) for each in silos}) == 4


class TestPresent:
    def test_passes_over_who_is_silent(self) -> None:
        seen = {GATEWAYS[0]: NOW - timedelta(seconds=6), GATEWAYS[1]: NOW - timedelta(seconds=4)}
        assert present(GATEWAYS, seen, now=NOW, silence_seconds=5) == GATEWAYS[1:]

    def test_one_that_never_named_itself_is_not_missed(self) -> None:
        assert present(GATEWAYS, {}, now=NOW, silence_seconds=5) == GATEWAYS

    def test_when_all_are_silent_none_is_passed_over(self) -> None:
        seen = dict.fromkeys(GATEWAYS, NOW - timedelta(days=1))
        assert present(GATEWAYS, seen, now=NOW, silence_seconds=5) == GATEWAYS
