"""A silo's side of a secure sum: messages in, messages out, in an order that a table holds."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from splitlearn.errors import LocalProtocolError
from splitlearn.identity import Identity, TrustStore
from splitlearn.privacy.errors import ForgedSumError, ReusedSumError, SumMessageError
from splitlearn.privacy.fixed_point import encode
from splitlearn.privacy.masks import SEED_BYTES, CommonMask, MaskStream, PairwiseMasks, seal_seeds
from splitlearn.privacy.record import MAX_ATTEMPT, SumRecord
from splitlearn.privacy.roster import (
    MAX_TOKENS,
    MIN_SILOS,
    Roster,
    SumPlace,
    refuse_few_silos,
    sign_roster,
    sign_words,
    verify_consents,
    verify_roster,
)
from splitlearn.wire import (
    PART_WORDS,
    SEALED_SEED_BYTES,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    Words32,
)


class SumState(StrEnum):
    """Where a silo stands in a sum."""

    IDLE = "idle"
    """No sum is under way."""
    KEYED = "keyed"
    """It has said that it takes part, and waits for the roster."""
    CONSENTED = "consented"
    """It has signed the roster, and waits for everybody else's signature."""
    SUMMING = "summing"
    """Every member has signed the roster: words leave, and sums come."""


SumWord = SumStart | SumRoster | SumConsents | SumTotal | SumEnd

TABLE: Final[Mapping[tuple[SumState, type[SumWord]], SumState]] = {
    (SumState.IDLE, SumStart): SumState.KEYED,
    (SumState.KEYED, SumRoster): SumState.CONSENTED,
    (SumState.CONSENTED, SumConsents): SumState.SUMMING,
    (SumState.SUMMING, SumTotal): SumState.SUMMING,
    (SumState.KEYED, SumEnd): SumState.IDLE,
    (SumState.CONSENTED, SumEnd): SumState.IDLE,
    (SumState.SUMMING, SumEnd): SumState.IDLE,
}


@dataclass
class _Sum:
    """What is known of the sum under way; dropped at its end."""

    place: SumPlace | None = None
    own: SumKey | None = None
    agreed: Roster | None = None
    masks: PairwiseMasks | None = None
    common: bytes | None = None
    vector: Words32 | None = None
    totals: Words32 | None = None
    added: MaskStream | None = None
    taken: MaskStream | None = None
    sent: int = 0
    summed: int = 0


class SiloSum:
    """One silo in the sums of one job.

    A refusal ends the sum here: the silo is idle again, and not a word more leaves.

    Args:
        job: The job's id.
        spec_digest: 32 bytes.
        roster: The job's silos, in order.
        identity: This silo's certificate and key.
        trust: Who is believed.
        record: What was summed before; on disk.
        fraction_bits: Binary digits behind the point.
        min_silos: Fewest members that this silo sums with; a silo may raise it above 3, not lower it.
        private_key: The key of this process in this job; None for a new one. Never stored.
        draw_seed: Source of the common mask's seeds.

    Raises:
        RosterRefusedError: The job can never have as many members as ``min_silos`` asks for.
    """

    def __init__(
        self,
        *,
        job: str,
        spec_digest: bytes,
        roster: Sequence[str],
        identity: Identity,
        trust: TrustStore,
        record: SumRecord,
        fraction_bits: int,
        min_silos: int = MIN_SILOS,
        private_key: X25519PrivateKey | None = None,
        draw_seed: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        refuse_few_silos(len(roster), min_silos=min_silos)
        self._job, self._spec_digest, self._roster_of_job = job, spec_digest, tuple(roster)
        self._identity, self._trust, self._record = identity, trust, record
        self._fraction_bits, self._min_silos = fraction_bits, min_silos
        self._private_key = private_key or X25519PrivateKey.generate()
        self._draw_seed = draw_seed
        self._last_attempt = 0
        self.state = SumState.IDLE
        self._sum = _Sum()

    @property
    def name(self) -> str:
        """This silo."""
        return self._identity.certificate.name

    @property
    def roster(self) -> Roster:
        """The members of the sum under way."""
        assert self._sum.agreed is not None, "no roster is agreed yet"
        return self._sum.agreed

    def begin(self, start: SumStart, *, num_tokens: int, num_words: int) -> SumKey:
        """Take part in a sum.

        The caller has seen that the sum stands where this silo's blocks stand: values are told apart by
        round and step.

        Args:
            start: The server's word.
            num_tokens: This silo's weight: label tokens since the last average.
            num_words: Length of its vector.

        Raises:
            SumMessageError: A sum is under way.
            ReusedSumError: Every attempt is used up.
        """
        self._follow(start)
        if not 0 <= num_tokens <= MAX_TOKENS or num_words < 1:
            raise LocalProtocolError(f"{num_words} words of weight {num_tokens} cannot be summed")
        self._sum.place = SumPlace(self._job, self._spec_digest, start.round, start.step)
        self._sum.own = sign_words(
            self._sum.place,
            identity=self._identity,
            key=self._private_key.public_key().public_bytes_raw(),
            num_tokens=num_tokens,
            num_words=num_words,
            next_attempt=self._next_attempt(),
        )
        return self._sum.own

    def consent(self, shown: SumRoster, *, now: datetime) -> SumConsent:
        """Sign the roster, if it is one to sum with.

        Args:
            shown: The server's word.
            now: Time against which certificates are checked.

        Raises:
            SumError: See :func:`splitlearn.privacy.roster.verify_roster`, :meth:`SumRecord.refuse`.
        """
        self._follow(shown)
        try:
            assert self._sum.place is not None
            assert self._sum.own is not None
            roster = verify_roster(
                shown,
                place=self._sum.place,
                roster=self._roster_of_job,
                own=self._sum.own,
                min_silos=self._min_silos,
                trust=self._trust,
                now=now,
            )
            self._record.refuse(roster)
            self._last_attempt = roster.attempt
            self._sum.agreed = roster
            self._sum.masks = PairwiseMasks(self._private_key, roster=roster, own=self.name)
            return SumConsent(signature=sign_roster(roster, self._identity), seeds=self._make_seeds())
        except Exception:
            self._end()
            raise

    def accept(self, consents: SumConsents, tensors: Sequence[tuple[str, NDArray[np.float32]]]) -> None:
        """See that every member has signed this very roster; words may leave when this returns.

        Encodes this silo's vector, and writes to the disk.

        Args:
            consents: The server's word.
            tensors: What the silo's blocks changed, by name, in an order that all members share.

        Raises:
            RosterMismatchError: Somebody was shown another roster.
            ForgedSumError: The seed is not the first member's.
            FixedPointError: A value does not fit; names the tensor.
            StorageError: The disk refused.
        """
        self._follow(consents)
        try:
            verify_consents(self.roster, consents.signatures)
            self._take_seed(consents.seed)
            vector = self._encoded(tensors)
            self._record.note_sending(self.roster)
        except Exception:
            self._end()
            raise
        assert self._sum.common is not None
        self._sum.vector, self._sum.totals = vector, np.empty_like(vector)
        common = CommonMask(self._sum.common, roster=self.roster)
        self._sum.added = common.stream() if self.roster.names[0] == self.name else None
        self._sum.taken = common.stream()

    @property
    def parts_ahead(self) -> int:
        """Parts that were sent and whose totals have not come."""
        return -(-(self._sum.sent - self._sum.summed) // PART_WORDS)

    @property
    def has_parts(self) -> bool:
        """Parts are left to be sent."""
        return self._sum.vector is not None and self._sum.sent < self._sum.vector.size

    def next_part(self) -> SumPart:
        """Return the vector's next part, masked. Each is masked once and never again."""
        assert self._sum.vector is not None, "nothing is loaded"
        assert self._sum.masks is not None
        offset = self._sum.sent
        part = self._sum.vector[offset : offset + PART_WORDS]
        self._sum.masks.add_to(part)
        if self._sum.added is not None:
            part += self._sum.added.next(part.size)
        self._sum.sent += part.size
        return SumPart(offset=offset, words=part)

    def take(self, total: SumTotal) -> None:
        """Take the common mask off a part of the sum.

        Raises:
            SumMessageError: Not the next part, or not of its size.
        """
        self._follow(total)
        assert self._sum.own is not None
        due = min(PART_WORDS, self._sum.own.num_words - self._sum.summed)
        begin = self._sum.summed
        if self._sum.vector is None or total.offset != begin or total.words.size != due:
            self._end()
            raise SumMessageError(
                f"a sum of {total.words.size} words came for offset {total.offset}; due were {due} words at "
                f"{begin}"
            )
        assert self._sum.totals is not None
        assert self._sum.taken is not None
        self._sum.totals[begin : begin + due] = total.words - self._sum.taken.next(due)
        self._sum.summed += due

    def end(self, word: SumEnd) -> Words32 | None:
        """End the sum.

        Returns:
            The sum of all members' words, for :func:`decode`; None where it was given up. The caller takes
            it over, says :meth:`finish`, and only then :class:`SumDone`.

        Raises:
            SumMessageError: It should be whole, and is not.
        """
        self._follow(word)
        totals, is_whole = (
            self._sum.totals,
            self._sum.own is not None and self._sum.summed == self._sum.own.num_words,
        )
        self._end()
        if word.averaged and not is_whole:
            raise SumMessageError("the server says that the sum is whole; parts of it never came")
        return totals if word.averaged else None

    def finish(self) -> SumDone:
        """Note that the average was taken over.

        Raises:
            StorageError: The disk refused.
        """
        self._record.note_finished()
        return SumDone(averaged=True)

    def _next_attempt(self) -> int:
        """Past all attempts that words were sent in, and those that this process's key was used in at all.

        A sum that was given up before any word left has sealed a seed: under this key never another.
        """
        attempt = max(self._record.next_attempt, self._last_attempt + 1)
        if attempt > MAX_ATTEMPT:
            raise ReusedSumError("all attempts of this job's sums are used up; begin a new job")
        return attempt

    def _encoded(self, tensors: Sequence[tuple[str, NDArray[np.float32]]]) -> Words32:
        assert self._sum.own is not None
        own, roster = self._sum.own, self.roster
        if sum(values.size for _, values in tensors) != own.num_words:
            raise LocalProtocolError(f"{own.num_words} words were announced, the tensors have other sizes")
        return np.concatenate(
            [
                encode(
                    values,
                    name=name,
                    num_tokens=own.num_tokens,
                    total_tokens=roster.total_tokens,
                    num_silos=roster.num_silos,
                    fraction_bits=self._fraction_bits,
                )
                for name, values in tensors
            ]
        )

    def _make_seeds(self) -> tuple[bytes, ...]:
        roster = self.roster
        if roster.names[0] != self.name:
            return ()
        assert self._sum.masks is not None
        self._sum.common = self._draw_seed(SEED_BYTES)
        return seal_seeds(self._sum.masks, self._sum.common, roster.names[1:])

    def _take_seed(self, sealed: bytes | None) -> None:
        assert self._sum.masks is not None
        if self._sum.common is not None:  # ours
            return
        if sealed is None or len(sealed) != SEALED_SEED_BYTES:
            raise ForgedSumError("no seed of the common mask came; without it the average cannot be read")
        self._sum.common = self._sum.masks.open_seed(sealed)

    def _follow(self, message: SumWord) -> None:
        state = TABLE.get((self.state, type(message)))
        if state is None:
            seen = self.state
            self._end()
            raise SumMessageError(f"{type(message).__name__} has no place in a sum that is {seen.value}")
        self.state = state

    def _end(self) -> None:
        self.state = SumState.IDLE
        self._sum = _Sum()
