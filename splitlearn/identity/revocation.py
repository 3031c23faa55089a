"""Numbered revocation lists: which certificates the federation root has taken back.

Layout, integers big-endian (docs/protocol.md, "Revocation lists")::

    "TKR1"  number u64  issued_at u64 (seconds since 1970, UTC)  count u32
    count x serial u64, strictly ascending  signature 64
"""

from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from splitlearn.identity.certificate import MAX_SERIAL
from splitlearn.identity.errors import MalformedRevocationListError
from splitlearn.identity.fields import MAX_UNIX_SECONDS, FieldReader, unix_seconds, whole_seconds
from splitlearn.identity.keys import SIGNATURE_BYTES

MAGIC = b"TKR1"
MAX_NUMBER = 2**64 - 1
MAX_REVOKED_SERIALS = 65_536
MAX_REVOCATION_LIST_BYTES = len(MAGIC) + 8 + 8 + 4 + 8 * MAX_REVOKED_SERIALS + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class RevocationList:
    """All certificates that the root has revoked so far.

    Attributes:
        number: Grows by at least one with every list, from 1.
        serials: Revoked serials, strictly ascending.
        issued_at: When the root signed it, UTC, whole seconds; for people, decides nothing.
        signature: The root's Ed25519 signature over :meth:`signed_part`.

    Raises:
        MalformedRevocationListError: A field is out of range.
    """

    number: int
    serials: tuple[int, ...]
    issued_at: datetime
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_NUMBER:
            raise MalformedRevocationListError(f"the number {self.number} is not in 1..{MAX_NUMBER}")
        if len(self.signature) != SIGNATURE_BYTES:
            raise MalformedRevocationListError(
                f"the signature has {len(self.signature)} bytes, not {SIGNATURE_BYTES}"
            )
        _check_issued_at(self.issued_at)
        _check_serials(self.serials)

    def signed_part(self) -> bytes:
        """Return the bytes that the root signs: everything before the signature."""
        return b"".join(
            (
                MAGIC,
                self.number.to_bytes(8, "big"),
                unix_seconds(self.issued_at).to_bytes(8, "big"),
                len(self.serials).to_bytes(4, "big"),
                *(serial.to_bytes(8, "big") for serial in self.serials),
            )
        )

    def to_bytes(self) -> bytes:
        """Return the one encoding of this list."""
        return self.signed_part() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "RevocationList":
        """Parse a list. Its signature is not checked here.

        Raises:
            MalformedRevocationListError: The bytes are no list, or not in the one encoding.
        """
        if len(data) > MAX_REVOCATION_LIST_BYTES:
            raise MalformedRevocationListError(
                f"{len(data)} bytes are too long; a list has at most {MAX_REVOCATION_LIST_BYTES}"
            )
        reader = FieldReader(data, refuse=MalformedRevocationListError, what="revocation list")
        reader.expect(MAGIC)
        number = reader.unsigned(8)
        issued_at = reader.moment()
        serials = _read_serials(reader)
        signature = reader.take(SIGNATURE_BYTES)
        reader.finish()
        return cls(number=number, serials=serials, issued_at=issued_at, signature=signature)


def _read_serials(reader: FieldReader) -> tuple[int, ...]:
    count = reader.unsigned(4)
    if count > MAX_REVOKED_SERIALS:
        raise MalformedRevocationListError(
            f"{count} serials are too many; the limit is {MAX_REVOKED_SERIALS}"
        )
    raw = reader.take(8 * count)
    return tuple(int.from_bytes(raw[start : start + 8], "big") for start in range(0, len(raw), 8))


def _check_serials(serials: tuple[int, ...]) -> None:
    if len(serials) > MAX_REVOKED_SERIALS:
        raise MalformedRevocationListError(
            f"{len(serials)} serials are too many; the limit is {MAX_REVOKED_SERIALS}: drop expired ones"
        )
    if any(not 1 <= serial <= MAX_SERIAL for serial in serials):
        raise MalformedRevocationListError(f"a serial is not in 1..{MAX_SERIAL}")
    if any(first >= second for first, second in pairwise(serials)):
        raise MalformedRevocationListError("the serials are not strictly ascending; sort them, each once")


def _check_issued_at(moment: datetime) -> None:
    if not 0 <= unix_seconds(moment) <= MAX_UNIX_SECONDS or moment != whole_seconds(moment):
        raise MalformedRevocationListError(
            f"the moment {moment.isoformat()} is not in whole seconds from 1970 on; round it"
        )
