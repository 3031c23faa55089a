"""Which caches of a generating turn are open, and what each awaits.

The silo opens a cache with its prompts and then sends one token per row and step; the trunk answers each in
turn. Within a cache the two strictly alternate, so both sides see the same order whatever is on its way;
several caches may be under way at once. Positions are said with every token and compared with what was
counted: a cache that lost or repeated a token would otherwise go on with wrong results and no sign.
"""

from dataclasses import dataclass

from splitlearn.protocol.errors import IllegalMessageError
from splitlearn.wire import (
    CachedHidden,
    CacheEnd,
    CacheRefused,
    Decode,
    GenerationMessage,
    Phase,
    Prefill,
    TurnStart,
)

MAX_CACHES = 16
"""Caches that one silo may have open: as many as messages may be on their way."""


@dataclass
class _Cache:
    """One open cache.

    Attributes:
        lengths: Tokens of each row so far.
        capacity: Most tokens of a row.
        going: Rows that got a token the last time; at first all.
        owed: Tokens whose hidden states the trunk owes; 0 when it is the silo's turn.
        is_new: The trunk has not answered yet, and may refuse.
    """

    lengths: list[int]
    capacity: int
    going: tuple[int, ...]
    owed: int
    is_new: bool = True


class GenerationLedger:
    """The caches of one generating turn.

    Args:
        turn: The message that opened the turn.
    """

    def __init__(self, turn: TurnStart) -> None:
        assert turn.phase is Phase.GENERATE, "other phases are counted by steps"
        self.turn = turn
        self.step = turn.first_step
        self._open: dict[int, _Cache] = {}
        self._num_opened = 0

    @property
    def is_complete(self) -> bool:
        """The turn may end: the trunk owes no answer. What is still open ends with it."""
        return not any(cache.owed for cache in self._open.values())

    def record(self, message: GenerationMessage) -> None:
        """Note one message.

        Raises:
            IllegalMessageError: Its cache is not open, or awaits something else.
        """
        match message:
            case Prefill():
                self._begin(message)
            case Decode():
                self._go_on(message)
            case CachedHidden():
                self._answer(message)
            case CacheRefused():
                self._refuse(message)
            case CacheEnd():
                self._end(message)

    def _begin(self, message: Prefill) -> None:
        if message.cache != self._num_opened:
            raise IllegalMessageError(
                f"cache {message.cache} was begun, the next of this turn is {self._num_opened}"
            )
        if len(self._open) == MAX_CACHES:
            raise IllegalMessageError(
                f"cache {message.cache} was begun while {MAX_CACHES} are open; end one before"
            )
        self._num_opened += 1
        lengths = list(message.lengths)
        self._open[message.cache] = _Cache(
            lengths, message.capacity, tuple(range(len(lengths))), owed=sum(lengths)
        )

    def _go_on(self, message: Decode) -> None:
        cache = self._cache(message)
        if cache.owed:
            raise IllegalMessageError(f"cache {message.cache} got new tokens before its last were answered")
        strangers = sorted(set(message.rows).difference(cache.going))
        if strangers:
            raise IllegalMessageError(
                f"row {strangers[0]} of cache {message.cache} got a token; it has ended, or there is none"
            )
        for row, position in zip(message.rows, message.positions, strict=True):
            if position != cache.lengths[row] or position >= cache.capacity:
                raise IllegalMessageError(
                    f"row {row} of cache {message.cache} got a token at position {position}; it has "
                    f"{cache.lengths[row]} tokens and room for {cache.capacity}"
                )
        for row in message.rows:
            cache.lengths[row] += 1
        cache.going, cache.owed = message.rows, len(message.rows)

    def _answer(self, message: CachedHidden) -> None:
        cache = self._cache(message)
        if len(message.hidden) != cache.owed or not cache.owed:
            raise IllegalMessageError(
                f"an answer of {len(message.hidden)} hidden states for cache {message.cache}, "
                f"{cache.owed} are owed"
            )
        cache.owed, cache.is_new = 0, False

    def _refuse(self, message: CacheRefused) -> None:
        if not self._cache(message).is_new:
            raise IllegalMessageError(f"cache {message.cache} was refused after it was answered")
        del self._open[message.cache]

    def _end(self, message: CacheEnd) -> None:
        if self._cache(message).owed:
            raise IllegalMessageError(f"cache {message.cache} was ended before its last tokens were answered")
        del self._open[message.cache]

    def _cache(self, message: GenerationMessage) -> _Cache:
        cache = self._open.get(message.cache)
        if cache is None:
            raise IllegalMessageError(
                f"a {type(message).__name__} message for cache {message.cache}: not open"
            )
        return cache
