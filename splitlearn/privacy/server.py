"""Whoever adds up: sees masked words and their masked sum, and decides only who is asked, and when.

The trunk's worker plays this part. It verifies nothing that members verify themselves: what it could get
wrong by mistake or malice, they refuse. What it checks bounds its own memory, and says whose fault it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from splitlearn.errors import IdentityError
from splitlearn.identity import Certificate
from splitlearn.privacy.errors import RosterRefusedError, SumMessageError
from splitlearn.privacy.roster import MIN_SILOS
from splitlearn.wire import (
    PART_WORDS,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    TrunkMessage,
    Words32,
)

PARTS_AHEAD = 4
"""How many parts a member may send before the first of them is summed; bounds the server's memory."""

ToMember = tuple[str, TrunkMessage]
MemberWord = SumKey | SumConsent | SumPart | SumDone


class ServerState(StrEnum):
    """Where a sum stands at the server."""

    KEYS = "keys"
    """Members say that they take part."""
    CONSENTS = "consents"
    """Members sign the roster. No word of a block can have been sent."""
    SUMMING = "summing"
    """Members have everybody's signature: words may be on their way."""
    CLOSING = "closing"
    """The members were told the end, and say that they heard it."""
    OVER = "over"
    """Done."""


TABLE: Final[Mapping[tuple[ServerState, type[MemberWord]], ServerState]] = {
    (ServerState.KEYS, SumKey): ServerState.CONSENTS,
    (ServerState.CONSENTS, SumConsent): ServerState.SUMMING,
    (ServerState.SUMMING, SumPart): ServerState.SUMMING,
    (ServerState.CLOSING, SumDone): ServerState.OVER,
    # On their way when the sum was given up.
    (ServerState.CLOSING, SumKey): ServerState.CLOSING,
    (ServerState.CLOSING, SumConsent): ServerState.CLOSING,
    (ServerState.CLOSING, SumPart): ServerState.CLOSING,
}
"""The state that a message leads to once every member has said it."""


@dataclass
class _Part:
    """The sum of one part so far."""

    words: Words32
    members: set[str]


@dataclass
class _Progress:
    """What the members said since the last change of state, and how far the parts are."""

    given: dict[str, int]
    said: dict[str, MemberWord] = field(default_factory=dict)
    num_words: int = 0
    parts: dict[int, _Part] = field(default_factory=dict)
    summed: int = 0

    @classmethod
    def of(cls, names: Sequence[str]) -> "_Progress":
        return cls(dict.fromkeys(names, 0))


class SumServer:
    """One sum over some silos; begin it with :meth:`begin`.

    Args:
        names: The silos asked, in the job's order.
        round_number: From 1.
        step: Steps of each silo in this round so far.
        min_silos: Fewest members that a sum may shrink to.

    Attributes:
        state: Where it stands.
        averaged: Whether every member was given the whole sum.

    Raises:
        RosterRefusedError: Fewer silos than may be summed.
    """

    def __init__(
        self, names: Sequence[str], *, round_number: int, step: int, min_silos: int = MIN_SILOS
    ) -> None:
        if len(names) < max(min_silos, MIN_SILOS):
            raise RosterRefusedError(
                f"a sum over {len(names)} silos is refused; it takes {max(min_silos, MIN_SILOS)}"
            )
        self._names = tuple(names)
        self._start = SumStart(round=round_number, step=step)
        self._min_silos = max(min_silos, MIN_SILOS)
        self.state = ServerState.KEYS
        self.averaged = False
        self._shrinks = False
        self._progress = _Progress.of(self._names)

    @property
    def members(self) -> tuple[str, ...]:
        """The silos that take part."""
        return self._names

    @property
    def due(self) -> tuple[str, ...]:
        """Members whose next message is awaited."""
        if self.state is ServerState.OVER:
            return ()
        if self.state is ServerState.SUMMING:
            return tuple(
                name for name in self._names if self._progress.given[name] < self._progress.num_words
            )
        return tuple(name for name in self._names if name not in self._progress.said)

    def begin(self) -> list[ToMember]:
        """Return what to say first, to whom."""
        return self._to_all(self._start)

    def receive(self, name: str, message: MemberWord) -> list[ToMember]:
        """Take a member's message, and return what to say, to whom.

        Raises:
            SumMessageError: Out of order, of another size, or in another's name.
        """
        if name not in self._names or (self.state, type(message)) not in TABLE:
            raise SumMessageError(
                f"{type(message).__name__} of silo {name!r} has no place in a sum that is {self.state.value}"
            )
        match message:
            case SumPart() if self.state is ServerState.SUMMING:
                return self._add(name, message)
            case SumKey() | SumConsent() if self.state is ServerState.CLOSING:
                return []
            case SumKey() | SumConsent() | SumDone():
                return self._collect(name, message)
            case _:
                return []

    def drop(self, name: str) -> list[ToMember]:
        """Go on without a silo that was lost.

        Before any word was sent the others begin again without it, if they are enough; after that the sum
        is given up, and nobody's blocks are averaged.

        Returns:
            What to say, to whom.
        """
        if name not in self._names:
            return []
        can_shrink = self.state in {ServerState.KEYS, ServerState.CONSENTS}
        self._names = tuple(other for other in self._names if other != name)
        self._progress.said.pop(name, None)
        if self.state is ServerState.CLOSING:
            self._shrinks = self._shrinks and len(self._names) >= self._min_silos
            return self._closed()
        self._shrinks = can_shrink and len(self._names) >= self._min_silos
        return self._close(averaged=False)

    def give_up(self) -> list[ToMember]:
        """End the sum without an average; returns what to say, to whom."""
        self._shrinks = False
        return self._close(averaged=False)

    def _collect(self, name: str, message: SumKey | SumConsent | SumDone) -> list[ToMember]:
        if name in self._progress.said:
            raise SumMessageError(f"silo {name!r} said {type(message).__name__} twice in one sum")
        if isinstance(message, SumKey):
            _refuse_other_name(name, message)
        self._progress.said[name] = message
        if len(self._progress.said) < len(self._names):
            return []
        finish: dict[ServerState, Callable[[], list[ToMember]]] = {
            ServerState.KEYS: self._keyed,
            ServerState.CONSENTS: self._consented,
            ServerState.CLOSING: self._closed,
        }
        return finish[self.state]()

    def _keyed(self) -> list[ToMember]:
        members = tuple(word for name in self._names if isinstance(word := self._progress.said[name], SumKey))
        if not any(member.num_tokens for member in members):
            return self._close(averaged=False)  # nobody has learned anything
        sizes = {member.num_words for member in members}
        if len(sizes) > 1:
            raise SumMessageError(f"the silos' blocks have different sizes: {sorted(sizes)} words")
        [self._progress.num_words] = sizes
        self._advance(SumKey)
        attempt = max(member.next_attempt for member in members)
        return self._to_all(SumRoster(attempt=attempt, members=members))

    def _consented(self) -> list[ToMember]:
        words = [word for name in self._names if isinstance(word := self._progress.said[name], SumConsent)]
        first, *others = self._names
        seeds = words[0].seeds
        if len(seeds) != len(others) or any(word.seeds for word in words[1:]):
            raise SumMessageError(
                f"silo {first!r} gave {len(seeds)} seeds of the common mask for {len(others)} others; "
                "it alone gives one to each"
            )
        signatures = tuple(word.signature for word in words)
        self._advance(SumConsent)
        own = dict(zip(others, seeds, strict=True))
        return [
            (name, SumConsents(signatures=signatures, seed=own.get(name)))  # the first has its own
            for name in self._names
        ]

    def _add(self, name: str, message: SumPart) -> list[ToMember]:
        offset = self._progress.given[name]
        due = min(PART_WORDS, self._progress.num_words - offset)
        if message.offset != offset or message.words.size != due or due == 0:
            raise SumMessageError(
                f"silo {name!r} sent {message.words.size} words at {message.offset}; due were {due} words "
                f"at {offset}"
            )
        if offset >= self._progress.summed + PARTS_AHEAD * PART_WORDS:
            raise SumMessageError(
                f"silo {name!r} is {offset - self._progress.summed} words ahead of the slowest member, the "
                f"limit is {PARTS_AHEAD * PART_WORDS}"
            )
        self._progress.given[name] += due
        part = self._progress.parts.setdefault(offset, _Part(np.zeros(due, dtype=np.uint32), set()))
        part.words += message.words
        part.members.add(name)
        if len(part.members) < len(self._names):
            return []
        del self._progress.parts[offset]
        self._progress.summed += due
        answers = self._to_all(SumTotal(offset=offset, words=part.words))
        return answers + (
            self._close(averaged=True) if self._progress.summed == self._progress.num_words else []
        )

    def _close(self, *, averaged: bool) -> list[ToMember]:
        if self.state in {ServerState.CLOSING, ServerState.OVER}:
            return []
        self.averaged = averaged
        self._progress = _Progress.of(self._names)
        self.state = ServerState.CLOSING
        return self._to_all(SumEnd(averaged=averaged))

    def _closed(self) -> list[ToMember]:
        """Once every member knows the end: over, or from the beginning with those who are left."""
        if len(self._progress.said) < len(self._names):
            return []
        wrong = [
            name
            for name, word in self._progress.said.items()
            if isinstance(word, SumDone) and word.averaged is not self.averaged
        ]
        if wrong:
            raise SumMessageError(f"silo {wrong[0]!r} ended the sum otherwise than it was told to")
        self._progress = _Progress.of(self._names)
        begins_again, self._shrinks = self._shrinks, False
        self.state = ServerState.KEYS if begins_again else ServerState.OVER
        return self.begin() if begins_again else []

    def _advance(self, kind: type[MemberWord]) -> None:
        self.state = TABLE[self.state, kind]
        self._progress.said = {}

    def _to_all(self, message: TrunkMessage) -> list[ToMember]:
        return [(name, message) for name in self._names]


def _refuse_other_name(name: str, message: SumKey) -> None:
    try:
        shown = Certificate.from_bytes(message.certificate).name
    except IdentityError as error:
        raise SumMessageError(f"silo {name!r} showed no certificate in the sum: {error.message}") from error
    if shown != name:
        raise SumMessageError(f"silo {name!r} showed the certificate of {shown!r} in the sum")
