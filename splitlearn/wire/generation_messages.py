"""The messages of split generation: prompts go in once, then one token per row and step.

Part of the closed list of :mod:`splitlearn.wire.messages`; what they are for is told in docs/protocol.md,
section 15, and done by :mod:`splitlearn.generation`. Axes: N tokens of a message, D hidden size.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from splitlearn.wire.schema import LIST_U32, U32, U64, Array, Choice, Listed, Tensor
from splitlearn.wire.value import Value


class CacheLimit(IntEnum):
    """Which limit of the trunk a cache would exceed."""

    BYTES = 1
    ROWS = 2
    LENGTH = 3


_ROWS_ND = Tensor("ND")
_CACHE = Listed(U32, "number of the cache, from 0 in each turn", "how many batches were generated before")
_TOKENS = (
    "with public base weights the tokens themselves can be recovered from it, nearly all of them "
    "(threat model): {what}"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Prefill(Value):
    """A batch of prompts: the trunk computes them and keeps their keys and values in a new cache."""

    cache: Annotated[int, _CACHE]
    capacity: Annotated[
        int, Listed(U32, "most tokens that a row may come to, prompt included", "longest answer asked for")
    ]
    lengths: Annotated[
        tuple[int, ...], Listed(LIST_U32, "tokens of each prompt, in order", "how long each prompt is")
    ]
    hidden: Annotated[
        Array,
        Listed(
            _ROWS_ND,
            "hidden states of the prompts after the bottom, no pads",
            _TOKENS.format(what="the prompts"),
        ),
    ]

    def inconsistency(self) -> str | None:
        """Say what does not fit together, or None."""
        if sum(self.lengths) != len(self.hidden):
            return f"lengths sum to {sum(self.lengths)}, hidden has {len(self.hidden)} rows"
        if not self.lengths or min(self.lengths) < 1:
            return "every prompt has at least one token, and there is at least one prompt"
        if max(self.lengths) > self.capacity:
            return f"a prompt of {max(self.lengths)} tokens in a cache for {self.capacity}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Decode(Value):
    """One new token of each row that goes on."""

    cache: Annotated[int, _CACHE]
    rows: Annotated[
        tuple[int, ...], Listed(LIST_U32, "rows that go on, in order", "how long each answer comes to be")
    ]
    positions: Annotated[
        tuple[int, ...], Listed(LIST_U32, "position of each new token in its row, from 0", "nothing more")
    ]
    hidden: Annotated[
        Array,
        Listed(
            _ROWS_ND,
            "hidden states of the new tokens after the bottom",
            _TOKENS.format(what="the answers"),
        ),
    ]

    def inconsistency(self) -> str | None:
        """Say what does not fit together, or None."""
        if not len(self.rows) == len(self.positions) == len(self.hidden):
            return (
                f"{len(self.rows)} rows, {len(self.positions)} positions and {len(self.hidden)} hidden "
                "states; there is one of each per row"
            )
        if not self.rows or any(one >= next_ for one, next_ in zip(self.rows, self.rows[1:], strict=False)):
            return "there is at least one row, and rows are in ascending order"
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CacheEnd(Value):
    """The batch is done: the trunk frees its cache."""

    cache: Annotated[int, _CACHE]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CachedHidden(Value):
    """What the trunk made of a prefill or of one new token per row: rows as in its question."""

    cache: Annotated[int, _CACHE]
    hidden: Annotated[
        Array,
        Listed(
            _ROWS_ND,
            "hidden states after the trunk",
            "to the silo, by its answers, the trained trunk and what other silos' texts left in it",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CacheRefused(Value):
    """Answers a prefill whose cache would exceed a limit of the trunk; nothing of it is kept."""

    cache: Annotated[int, _CACHE]
    limit: Annotated[CacheLimit, Listed(Choice(CacheLimit), "which limit", "a limit of the trunk")]
    asked: Annotated[int, Listed(U64, "what the cache would come to", "nothing that the silo does not know")]
    allowed: Annotated[int, Listed(U64, "what the trunk still allows", "how much others use of it")]


GenerationMessage = Prefill | Decode | CacheEnd | CachedHidden | CacheRefused
