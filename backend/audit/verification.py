"""Verifying an export, with nothing but the export and the federation root's public key."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from backend.audit.chain import Head, genesis, link
from backend.audit.errors import AuditBrokenError
from backend.audit.lines import RowLine, read_line
from backend.federation.signer import SIGNER_NAME
from splitlearn.errors import IdentityError
from splitlearn.identity import CertificateKind, PublicKey, TrustStore


@dataclass(frozen=True, slots=True)
class Verified:
    """What an export was found to be.

    Attributes:
        num_rows: Rows of the chain.
        num_hidden: Of these, rows whose content is not shown in this export.
        digest: Of the whole chain: note it, and later exports must contain it.
        signed_at: When the head was signed, by the server's clock.
    """

    num_rows: int
    num_hidden: int
    digest: bytes
    signed_at: datetime


def verify(lines: Iterable[bytes], root: PublicKey, *, earlier: Head | None = None) -> Verified:
    """Check every row of an export and its signed head.

    Args:
        lines: Of the export, each with its line feed.
        root: The federation root's key, as the silos have pinned it.
        earlier: The head of an export made before: this one must continue it. Without it, whoever holds
            the server could show an old head together with the rows up to there.

    Raises:
        AuditFileError: No export, or not as it was written.
        AuditBrokenError: A row was changed, dropped, moved or added; the message names it.
    """
    if earlier is not None:
        _check_signature(earlier, root)
    number, digest, num_hidden, head = 0, genesis(root.raw), 0, None
    passed = earlier is None or _is_met(earlier, 0, digest)
    for read in _read(lines):
        if head is not None:
            raise AuditBrokenError(f"something follows the head of {head.number} rows: rows were added")
        if isinstance(read, Head):
            head = read
            continue
        digest = _follow(read, number, digest)
        number += 1
        num_hidden += read.is_hidden
        passed = passed or (earlier is not None and _is_met(earlier, number, digest))
    _check_end(head, number, digest)
    assert head is not None
    _check_signature(head, root)
    if not passed:
        assert earlier is not None
        raise AuditBrokenError(
            f"the earlier export tells of {earlier.number} rows; this one ends at row {number}: "
            f"rows {number + 1} to {earlier.number} were dropped"
        )
    return Verified(number, num_hidden, digest, head.signed_at)


def last_head(lines: Iterable[bytes]) -> Head:
    """Return the head of an export, unchecked.

    Raises:
        AuditFileError: No export.
        AuditBrokenError: It does not end with a head.
    """
    head: Head | RowLine | None = None
    for read in _read(lines):
        head = read
    if not isinstance(head, Head):
        raise AuditBrokenError("the earlier export does not end with a head: it was cut off; use a whole one")
    return head


def _read(lines: Iterable[bytes]) -> Iterator[RowLine | Head]:
    for place, line in enumerate(lines, start=1):
        yield read_line(line, where=f"line {place}")


def _follow(row: RowLine, number: int, before: bytes) -> bytes:
    expected = number + 1
    if row.number != expected:
        raise AuditBrokenError(
            f"row {row.number} stands where row {expected} belongs: rows were dropped, added or moved"
        )
    digest = link(before, expected, row.content_digest)
    if digest != row.digest:
        raise AuditBrokenError(
            f"row {expected} is not the one that was hung on the chain: its content, its digest or the root "
            "is another"
        )
    return digest


def _check_end(head: Head | None, number: int, digest: bytes) -> None:
    if head is None:
        raise AuditBrokenError(f"the signed head is missing after row {number}: the export was cut off there")
    if head.number != number:
        what = (
            f"row {number + 1} is missing" if head.number > number else f"row {head.number + 1} is too much"
        )
        raise AuditBrokenError(f"{what}: the signed head tells of {head.number} rows, here are {number}")
    if head.digest != digest:
        raise AuditBrokenError(
            f"the signed head tells of another row {number}: rows were changed and the chain was made anew"
        )


def _check_signature(head: Head, root: PublicKey) -> None:
    try:
        head.verify()
        TrustStore(root).verify(
            head.certificate, kind=CertificateKind.SPEC_SIGNER, name=SIGNER_NAME, now=head.signed_at
        )
    except IdentityError as error:
        raise AuditBrokenError(f"the head after row {head.number} is not signed: {error.message}") from error


def _is_met(earlier: Head, number: int, digest: bytes) -> bool:
    if number != earlier.number:
        return False
    if digest != earlier.digest:
        raise AuditBrokenError(
            f"row {number} or one before it is not the one of the earlier export, whose head was signed at "
            f"{earlier.signed_at.isoformat()}: history was rewritten"
        )
    return True
