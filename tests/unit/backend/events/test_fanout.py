import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from redis import Redis

from backend.events.bus import Bus
from backend.events.fanout import Fanout
from splitlearn.processes import free_port


@pytest.fixture
def joined(redis_url: str) -> Iterator[Callable[[], Bus]]:
    """Makes the bus of another process each time; returns when it hears the others."""
    fanouts: list[Fanout] = []

    def join() -> Bus:
        bus = Bus()
        listening = bus.thread_listener()
        fanouts.append(Fanout(redis_url, bus))
        fanouts[-1].start()
        assert listening.wait(5)
        return bus

    yield join
    for fanout in fanouts:
        fanout.stop()


class TestFanout:
    def test_wakes_another_process(self, joined: Callable[[], Bus]) -> None:
        ours, theirs = joined(), joined()
        listening = theirs.thread_listener()
        ours.notify()
        assert listening.wait(5)

    def test_does_not_wake_itself_a_second_time(self, joined: Callable[[], Bus]) -> None:
        ours, theirs = joined(), joined()
        mine, other = ours.thread_listener(), theirs.thread_listener()
        ours.notify()
        mine.clear()
        assert other.wait(5)  # the word has been round
        assert not mine.wait(0.3)

    def test_what_it_heard_is_not_told_on(self, joined: Callable[[], Bus], redis_url: str) -> None:
        ours, _theirs = joined(), joined()
        with (
            Redis.from_url(redis_url) as watching,
            watching.pubsub(ignore_subscribe_messages=True) as channel,
        ):
            channel.psubscribe("trunkline.changed.*")
            channel.get_message(timeout=1)
            ours.notify()
            said = [channel.get_message(timeout=0.3) for _ in range(4)]
        assert len([message for message in said if message is not None]) == 1

    def test_hears_again_after_its_connections_were_cut(
        self, joined: Callable[[], Bus], redis_url: str
    ) -> None:
        ours, theirs = joined(), joined()
        with Redis.from_url(redis_url) as server:
            for each in server.client_list(_type="pubsub"):
                server.client_kill_filter(_id=each["id"])
        listening = theirs.thread_listener()
        until = time.monotonic() + 15
        while not listening.wait(0.2) and time.monotonic() < until:
            ours.notify()
        assert listening.is_set()

    def test_without_redis_its_own_are_woken_and_the_log_says_so_once(self) -> None:
        bus = Bus()
        listening = bus.thread_listener()
        with structlog.testing.capture_logs() as said:
            fanout = Fanout(f"redis://127.0.0.1:{free_port()}/0", bus)
            fanout.start()
            for _ in range(3):
                listening.clear()
                bus.notify()
                assert listening.wait(1)
                time.sleep(0.5)
            fanout.stop()
        told: list[Any] = [line["event"] for line in said]
        assert told == ["events_not_shared"]
