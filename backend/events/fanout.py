"""Wakes the waiting of other API processes as well, over Redis's channels.

A hint, as the bus itself: a word that is lost costs a waiting reader its next look, a second or two later.
So Redis may be away; everything goes on, a little slower, and the log says so once.
"""

import secrets
import threading
from collections.abc import Callable

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.exceptions import RedisError
from redis.retry import Retry

from backend.events.bus import Bus

FANOUT_SCHEMES = ("redis://", "rediss://")
"""Of brokers that can wake."""
_CHANNEL = "trunkline.changed"
_PAUSE_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.02
"""So many words at most go out one after the other: a burst of commits is one change."""
_ANSWER_SECONDS = 2.0
_HEARING_SECONDS = 0.5
_HEALTH_SECONDS = 5
_log = structlog.get_logger("backend.events")


class Fanout:
    """Tells other processes of this one's changes, and this one's bus of theirs: two threads.

    Args:
        url: ``redis://...``; the number of its database sets federations on one server apart.
        bus: Whose listeners are woken.
    """

    def __init__(self, url: str, bus: Bus) -> None:
        self._bus = bus
        self._me = secrets.token_hex(8).encode()
        self._redis = Redis.from_url(
            url,
            socket_connect_timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            health_check_interval=_HEALTH_SECONDS,
            retry=Retry(NoBackoff(), retries=0),  # the threads' own, so that a stop need not wait for its end
        )
        number = self._redis.connection_pool.connection_kwargs.get("db", 0)
        self._channel = f"{_CHANNEL}.{number}"
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._is_away, self._noting = False, threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=[work], name=f"fan-out {name}", daemon=True)
            for name, work in (("tells", self._tell), ("hears", self._hear))
        ]

    def start(self) -> None:
        """Begin; Redis need not be there."""
        self._bus.on_notify(self._changed.set)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads, and wait for them."""
        self._stopped.set()
        self._changed.set()
        for thread in self._threads:
            thread.join()
        self._redis.close()

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            try:
                work()
            except (RedisError, OSError) as error:
                self._note_away(error)
                self._stopped.wait(_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - a bug must not end the thread: others would be told nothing more
                _log.exception("events_failed")
                self._stopped.wait(_PAUSE_SECONDS)

    def _tell(self) -> None:
        while not self._stopped.is_set():
            self._changed.wait()
            self._changed.clear()
            try:
                self._redis.publish(self._channel, self._me)
            except BaseException:
                self._changed.set()  # said again when the connection is made anew
                raise
            self._note_there()
            self._stopped.wait(_SHORTEST_PAUSE_SECONDS)

    def _hear(self) -> None:
        with PubSub(self._redis.connection_pool, ignore_subscribe_messages=True) as channel:
            channel.subscribe(self._channel)
            self._note_there()
            self._bus.wake()  # what happened while nothing was heard
            while not self._stopped.is_set():
                message = channel.get_message(timeout=_HEARING_SECONDS)
                if message is not None and message["data"] != self._me:
                    self._bus.wake()

    def _note_away(self, error: Exception) -> None:
        with self._noting:
            was_away, self._is_away = self._is_away, True
        if not was_away:
            said = str(error).partition("\n")[0] or type(error).__name__
            _log.warning("events_not_shared", reason=said, next="others look every second; tried again")

    def _note_there(self) -> None:
        with self._noting:
            was_away, self._is_away = self._is_away, False
        if was_away:
            _log.info("events_shared_again")
