"""The messages of a secure sum: how silos average their blocks so that nobody sees one silo's.

Part of the closed list of :mod:`splitlearn.wire.messages`; what they are for is told in docs/protocol.md,
section 14, and done by :mod:`splitlearn.privacy`.
"""

from dataclasses import dataclass
from typing import Annotated

from splitlearn.wire.schema import (
    FLAG,
    U32,
    U64,
    Listed,
    Octets,
    Optional,
    Record,
    Several,
    Words,
    Words32,
    listed_fields,
)
from splitlearn.wire.value import Value

MAX_MEMBERS = 256
"""As many as a job has silos."""
PART_WORDS = 1 << 18
"""Words of every part of a vector but the last: 1 MiB."""
SUM_KEY_BYTES = 32
SEALED_SEED_BYTES = 48

_PLAN = "a place in the job's public plan"
_TOKENS = "how much text with labels this silo trained on since the last average"
_KEYED = "nothing: made for this job, thrown away at its end"
_SIGNED = "nothing more than what is signed"
_CERTIFICATE = Octets(1, 190)
_KEY = Octets(SUM_KEY_BYTES, SUM_KEY_BYTES)
_SIGNATURE = Octets(64, 64)
_SEED = Octets(SEALED_SEED_BYTES, SEALED_SEED_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumKey(Value):
    """The silo takes part in a sum: its key, made for this job, and what it weighs.

    The signature of the silo's certificate covers all of it and the sum's place in the job.
    """

    certificate: Annotated[bytes, Listed(_CERTIFICATE, "the silo's certificate", "its name; nothing new")]
    key: Annotated[bytes, Listed(_KEY, "X25519 key from which pairwise masks come", _KEYED)]
    num_tokens: Annotated[int, Listed(U64, "label tokens since the last average: the weight", _TOKENS)]
    num_words: Annotated[int, Listed(U64, "numbers that the silo's blocks train", _PLAN)]
    next_attempt: Annotated[int, Listed(U32, "first attempt that the silo has not used", "restarts")]
    signature: Annotated[bytes, Listed(_SIGNATURE, "the silo's signature over the above", _SIGNED)]


_MEMBER = Record(SumKey, listed_fields(SumKey))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumConsent(Value):
    """The silo has seen the roster, and agrees to a sum over it.

    ``seeds``: from the roster's first silo alone, for each other member in order.
    """

    signature: Annotated[bytes, Listed(_SIGNATURE, "the silo's signature over the roster's hash", _SIGNED)]
    seeds: Annotated[
        tuple[bytes, ...],
        Listed(
            Several(_SEED, MAX_MEMBERS), "the seed of the common mask, sealed for each other silo", "nothing"
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumPart(Value):
    """A part of the silo's blocks, masked: what they changed since the last average, times its weight."""

    offset: Annotated[int, Listed(U64, "where the part begins in the vector", _PLAN)]
    words: Annotated[
        Words32,
        Listed(
            Words(),
            "fixed-point numbers plus masks, modulo 2^32",
            "nothing, as long as one other member keeps its masks to itself; see the threat model",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumDone(Value):
    """The silo has taken over the average, or given the sum up."""

    averaged: Annotated[bool, Listed(FLAG, "whether the silo's blocks are the average now", _PLAN)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumStart(Value):
    """A sum of the silos' blocks begins, after so many steps of a round."""

    round: Annotated[int, Listed(U32, "the round, from 1", _PLAN)]
    step: Annotated[int, Listed(U32, "steps of each silo in this round so far", _PLAN)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumRoster(Value):
    """Who takes part in the sum, each in its own signed words, in the job's order."""

    attempt: Annotated[int, Listed(U32, "the largest next_attempt of the members", "restarts")]
    members: Annotated[
        tuple[SumKey, ...],
        Listed(Several(_MEMBER, MAX_MEMBERS), "every member's words", "to each silo: the others' weights"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumConsents(Value):
    """Every member's consent, so that none sums over a roster that another has not seen."""

    signatures: Annotated[
        tuple[bytes, ...],
        Listed(Several(_SIGNATURE, MAX_MEMBERS), "every member's signature, in order", _SIGNED),
    ]
    seed: Annotated[
        bytes | None,
        Listed(Optional(_SEED), "the seed of the common mask, sealed for this silo", "nothing"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumTotal(Value):
    """The sum of one part over all members, under the mask that the silos share and the trunk does not."""

    offset: Annotated[int, Listed(U64, "where the part begins in the vector", _PLAN)]
    words: Annotated[
        Words32,
        Listed(
            Words(),
            "sum of the members' parts, modulo 2^32",
            "to the silos, which can take the mask off: the average of their blocks",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SumEnd(Value):
    """The sum is over: whole, or given up and nobody averages."""

    averaged: Annotated[bool, Listed(FLAG, "whether every part was summed", "that some silo was lost")]


SumMessage = SumKey | SumConsent | SumPart | SumDone | SumStart | SumRoster | SumConsents | SumTotal | SumEnd
