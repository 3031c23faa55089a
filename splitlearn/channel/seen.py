"""A bounded memory of handshake messages received, to refuse a replay before any work is done on it."""

import hashlib
import threading
from collections import OrderedDict

from splitlearn.channel.errors import ReplayedHandshakeError
from splitlearn.wire import Frame

DEFAULT_MAX_ENTRIES = 65_536
"""Digests kept, 32 bytes each: about 8 MiB in all with Python's overhead."""


class SeenHandshakes:
    """Remembers the newest handshake messages by digest.

    Share one between all handshakes of a process; it may be used by several threads. What it has
    forgotten, or a restart has, is refused all the same: a replayed hello leads to fresh keys that the
    replayer cannot confirm, a replayed reply or confirm was sealed with other keys.

    Args:
        max_entries: Digests kept; the oldest are forgotten first.
    """

    __slots__ = ("_digests", "_lock", "_max_entries")

    def __init__(self, *, max_entries: int = DEFAULT_MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._digests: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def refuse_again(self, frame: Frame) -> None:
        """Remember a received handshake message.

        Raises:
            ReplayedHandshakeError: It was received before.
        """
        digest = hashlib.sha256(bytes(frame.header))
        digest.update(frame.body)
        with self._lock:
            if digest.digest() in self._digests:
                raise ReplayedHandshakeError(
                    f"this {frame.envelope.kind.name.lower()} was received before; somebody replays traffic"
                )
            self._digests[digest.digest()] = None
            if len(self._digests) > self._max_entries:
                self._digests.popitem(last=False)

    def __len__(self) -> int:
        return len(self._digests)
