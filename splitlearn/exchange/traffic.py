"""How many sealed bytes crossed, by what they were for."""

from collections import Counter

from splitlearn.wire import Phase


class Traffic:
    """Counts whole frames, envelope and seal included, in both directions."""

    def __init__(self) -> None:
        self._bytes: Counter[Phase | None] = Counter()
        self.connections = 0
        self.resent_messages = 0

    def count(self, num_bytes: int, phase: Phase | None) -> None:
        """Add one frame of ``phase``; None for what belongs to no turn: handshakes, the start, a round's end.

        So what a silo has counted when it saves a round is all of that round, whoever goes on from there.
        """
        self._bytes[phase] += num_bytes

    def bytes_of(self, phase: Phase | None) -> int:
        """Return the bytes counted for ``phase``."""
        return self._bytes[phase]

    @property
    def total_bytes(self) -> int:
        """All bytes of both directions."""
        return self._bytes.total()
