"""Who sums what: the roster that every member signs, and that every mask is derived from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from splitlearn.errors import IdentityError
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Context,
    Identity,
    SignatureError,
    TrustStore,
    encode_name,
)
from splitlearn.privacy.errors import ForgedSumError, RosterMismatchError, RosterRefusedError
from splitlearn.spec import MIN_SILOS_AVERAGED
from splitlearn.wire import SumKey, SumRoster

MIN_SILOS = MIN_SILOS_AVERAGED
"""With two, each could take its own blocks off the average and see the other's."""
MAX_TOKENS = 2**48
_DIGEST_CONTEXT = b"trunkline/sum-roster/v1\0"


def refuse_few_silos(num_silos: int, *, min_silos: int) -> None:
    """Refuse a job that can never have as many members in a sum as a silo asks for.

    Raises:
        RosterRefusedError: Or ``min_silos`` is below what any silo may ask for.
    """
    if min_silos < MIN_SILOS:
        raise RosterRefusedError(
            f"min_silos_in_sum is {min_silos}; a sum over fewer than {MIN_SILOS} silos shows one silo's "
            "blocks to another. Raise it, or leave it out"
        )
    if num_silos < min_silos:
        raise RosterRefusedError(
            f"the job has {num_silos} silos, this silo averages its blocks from {min_silos} on "
            "(min_silos_in_sum); add silos, or train with silo_blocks 'local'",
            public=f"the job has {num_silos} silos, this silo averages its blocks from {min_silos} on; "
            "add silos, or train with silo_blocks 'local'",
        )


@dataclass(frozen=True, slots=True)
class SumPlace:
    """Where in which job a sum stands.

    Attributes:
        job: The job's id.
        spec_digest: 32 bytes.
        round: From 1.
        step: Steps of each silo in this round before the sum.
    """

    job: str
    spec_digest: bytes
    round: int
    step: int

    def to_bytes(self) -> bytes:
        """Return the one encoding."""
        return (
            encode_name(self.job)
            + self.spec_digest
            + self.round.to_bytes(4, "big")
            + self.step.to_bytes(4, "big")
        )


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of one attempt at one sum.

    Attributes:
        place: Which sum.
        attempt: Never used before at any member.
        names: The members, in the job's order.
        members: Each one's signed words.
    """

    place: SumPlace
    attempt: int
    names: tuple[str, ...]
    members: tuple[SumKey, ...]

    @property
    def num_silos(self) -> int:
        """K."""
        return len(self.members)

    @property
    def total_tokens(self) -> int:
        """N."""
        return sum(member.num_tokens for member in self.members)

    def digest(self) -> bytes:
        """Return the SHA-256 that every member signs."""
        head = (
            self.place.to_bytes()
            + self.attempt.to_bytes(4, "big")
            + self.num_silos.to_bytes(2, "big")
            + self.total_tokens.to_bytes(8, "big")
        )
        words = b"".join(
            bytes([len(member.certificate)]) + member.certificate + _numbers(member)
            for member in self.members
        )
        return hashlib.sha256(_DIGEST_CONTEXT + head + words).digest()


def statement(place: SumPlace, words: SumKey) -> bytes:
    """Return what a member signs when it takes part: the sum's place and all that it says of itself."""
    return place.to_bytes() + _numbers(words)


def sign_words(
    place: SumPlace, *, identity: Identity, key: bytes, num_tokens: int, num_words: int, next_attempt: int
) -> SumKey:
    """Return a silo's signed words for one sum."""
    words = SumKey(
        certificate=identity.certificate.to_bytes(),
        key=key,
        num_tokens=num_tokens,
        num_words=num_words,
        next_attempt=next_attempt,
        signature=bytes(64),
    )
    signature = identity.signing_key.sign(Context.SUM_KEY, statement(place, words))
    return SumKey(
        certificate=words.certificate,
        key=key,
        num_tokens=num_tokens,
        num_words=num_words,
        next_attempt=next_attempt,
        signature=signature,
    )


def verify_roster(
    message: SumRoster,
    *,
    place: SumPlace,
    roster: Sequence[str],
    own: SumKey,
    min_silos: int,
    trust: TrustStore,
    now: datetime,
) -> Roster:
    """Return the roster, once every word in it is known to be its member's.

    Args:
        message: As the server shows it.
        place: The sum that was begun here.
        roster: The job's silos, in order.
        own: What this silo said.
        min_silos: Fewest members that this silo sums with.
        trust: Whose certificates are believed.
        now: Time against which they are checked.

    Raises:
        RosterRefusedError: Too few members, a stranger, another order, or other words of ours.
        ForgedSumError: A member's words are not its own.
    """
    certificates = [_certificate(member) for member in message.members]
    names = tuple(certificate.name for certificate in certificates)
    _refuse_members(names, roster=roster, min_silos=min_silos)
    if own not in message.members:
        raise RosterRefusedError(
            "the roster does not hold what this silo said of itself; its server changed it"
        )
    for certificate, member in zip(certificates, message.members, strict=True):
        _verify_words(member, certificate, place=place, trust=trust, now=now)
    _refuse_numbers(message, names)
    return Roster(place, message.attempt, names, message.members)


def sign_roster(roster: Roster, identity: Identity) -> bytes:
    """Return a member's consent to a roster."""
    return identity.signing_key.sign(Context.SUM_ROSTER, roster.digest())


def verify_consents(roster: Roster, signatures: Sequence[bytes]) -> None:
    """Check that every member has signed this very roster.

    Raises:
        RosterMismatchError: Somebody has not: it was shown another roster, or its signature was changed.
    """
    if len(signatures) != roster.num_silos:
        raise RosterMismatchError(
            f"{len(signatures)} consents came for a roster of {roster.num_silos}; each member must sign"
        )
    digest = roster.digest()
    for name, member, signature in zip(roster.names, roster.members, signatures, strict=True):
        try:
            _certificate(member).public_key.verify(Context.SUM_ROSTER, digest, signature)
        except SignatureError as error:
            raise RosterMismatchError(
                f"silo {name!r} has not signed the roster that was shown here; it was shown another, or its "
                "word was changed. Nothing of this silo's blocks was sent"
            ) from error


def _numbers(words: SumKey) -> bytes:
    return (
        words.key
        + words.num_tokens.to_bytes(8, "big")
        + words.num_words.to_bytes(8, "big")
        + words.next_attempt.to_bytes(4, "big")
    )


def _certificate(words: SumKey) -> Certificate:
    try:
        return Certificate.from_bytes(words.certificate)
    except IdentityError as error:
        raise ForgedSumError(f"a member of the sum shows no certificate: {error.message}") from error


def _refuse_members(names: Sequence[str], *, roster: Sequence[str], min_silos: int) -> None:
    if len(names) < min_silos:
        raise RosterRefusedError(
            f"the sum has {len(names)} members, this silo takes part from {min_silos} on (min_silos_in_sum)",
            public=f"the secure sum has {len(names)} members, this silo takes part from {min_silos} on",
        )
    if list(names) != [name for name in roster if name in set(names)]:
        raise RosterRefusedError(
            f"the sum's members {list(names)} are not silos of the job in its order, each once"
        )


def _verify_words(
    words: SumKey, certificate: Certificate, *, place: SumPlace, trust: TrustStore, now: datetime
) -> None:
    name = certificate.name
    try:
        trust.verify(certificate, kind=CertificateKind.SILO, name=name, now=now)
        certificate.public_key.verify(Context.SUM_KEY, statement(place, words), words.signature)
    except IdentityError as error:
        raise ForgedSumError(
            f"the words of silo {name!r} in the sum are not its own: {error.message}"
        ) from error


def _refuse_numbers(message: SumRoster, names: Sequence[str]) -> None:
    sizes = {name: member.num_words for name, member in zip(names, message.members, strict=True)}
    if len(set(sizes.values())) > 1:
        raise RosterRefusedError(f"the members train blocks of different sizes: {sizes}; they need one cut")
    attempt = max(member.next_attempt for member in message.members)
    if message.attempt != attempt:
        raise RosterRefusedError(f"the roster is of attempt {message.attempt}, its members are at {attempt}")
    total = sum(member.num_tokens for member in message.members)
    if not 1 <= total <= MAX_TOKENS:
        raise RosterRefusedError(
            f"the members' weights add up to {total} tokens; 1 to {MAX_TOKENS} can be summed"
        )
