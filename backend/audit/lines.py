"""The lines of an export: each one JSON value in its one encoding, so that no byte of it can vary.

Rows come in the chain's order, and the signed head last. A row that the reader may not see stands there by
the digest of its content alone.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from backend.audit.chain import DIGEST_BYTES, Head, canonical, content_digest
from backend.audit.errors import AuditFileError
from splitlearn.errors import TrunklineError
from splitlearn.identity import SIGNATURE_BYTES, Certificate
from splitlearn.identity.fields import MAX_UNIX_SECONDS, unix_seconds

FORMAT: Final = "trunkline/audit/v1"
MAX_LINE_BYTES: Final = 1 << 22
_MAX_NUMBER: Final = (1 << 63) - 1
_FIELDS: Final = {
    "row": {"content", "digest", "row"},
    "hidden": {"digest", "hidden", "row"},
    "head": {"certificate", "digest", "format", "head", "signature", "signed_at"},
}


@dataclass(frozen=True, slots=True)
class RowLine:
    """One row of an export.

    Attributes:
        number: Its place in the chain.
        digest: The chain's digest up to and with it, as the server states it.
        content_digest: Of its content, whether shown or not.
        is_hidden: The content is not shown to this reader.
    """

    number: int
    digest: bytes
    content_digest: bytes
    is_hidden: bool


def row_line(number: int, digest: bytes, content: Mapping[str, Any], *, is_hidden: bool) -> bytes:
    """Return the line of a row, with its line feed."""
    shown = {"hidden": content_digest(content).hex()} if is_hidden else {"content": content}
    return canonical({"row": number, "digest": digest.hex(), **shown}) + b"\n"


def head_line(head: Head) -> bytes:
    """Return the last line, with its line feed."""
    fields = {
        "format": FORMAT,
        "head": head.number,
        "digest": head.digest.hex(),
        "signed_at": unix_seconds(head.signed_at),
        "certificate": base64.b64encode(head.certificate.to_bytes()).decode("ascii"),
        "signature": head.signature.hex(),
    }
    return canonical(fields) + b"\n"


def read_line(line: bytes, *, where: str) -> RowLine | Head:
    """Return what a line says; nothing about the chain is checked here.

    Args:
        line: With its line feed.
        where: For the message: "line 7".

    Raises:
        AuditFileError: No line of an export, or not in its one encoding.
    """
    fields = _parse(line, where)
    if set(fields) == _FIELDS["head"]:
        return _read_head(fields, where)
    if set(fields) not in (_FIELDS["row"], _FIELDS["hidden"]):
        raise AuditFileError(f"{where}: {sorted(fields)} are not the fields of a row or head of an audit")
    is_hidden = "hidden" in fields
    if not is_hidden and not isinstance(fields["content"], dict):
        raise AuditFileError(f"{where}: the content is no object")
    return RowLine(
        number=_number(fields["row"], where),
        digest=_hex(fields["digest"], DIGEST_BYTES, where),
        content_digest=_hex(fields["hidden"], DIGEST_BYTES, where)
        if is_hidden
        else content_digest(fields["content"]),
        is_hidden=is_hidden,
    )


def _parse(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise AuditFileError(f"{where}: longer than {MAX_LINE_BYTES} bytes, which no row is")
    try:
        fields = json.loads(line)
        is_canonical = isinstance(fields, dict) and canonical(fields) + b"\n" == line
    except (ValueError, RecursionError) as error:
        raise AuditFileError(f"{where}: no JSON object of an audit's export: {error}") from error
    if not is_canonical:
        raise AuditFileError(
            f"{where}: not in the one encoding of an export: it was cut off or written by another program; "
            "export again, and leave the file as it is"
        )
    assert isinstance(fields, dict)
    return fields


def _read_head(fields: Mapping[str, Any], where: str) -> Head:
    if fields["format"] != FORMAT:
        raise AuditFileError(f"{where}: the format is {fields['format']!r}; this version reads {FORMAT!r}")
    seconds = _number(fields["signed_at"], where)
    if seconds > MAX_UNIX_SECONDS:
        raise AuditFileError(f"{where}: signed_at is {seconds}, after the year 9999")
    try:
        raw = base64.b64decode(fields["certificate"], validate=True)
        certificate = Certificate.from_bytes(raw)
    except (ValueError, TypeError, TrunklineError) as error:
        raise AuditFileError(f"{where}: the head's certificate cannot be read: {error}") from error
    return Head(
        number=_number(fields["head"], where),
        digest=_hex(fields["digest"], DIGEST_BYTES, where),
        signed_at=datetime.fromtimestamp(seconds, tz=UTC),
        certificate=certificate,
        signature=_hex(fields["signature"], SIGNATURE_BYTES, where),
    )


def _number(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
        raise AuditFileError(f"{where}: {value!r} is no number of a row")
    return value


def _hex(value: object, num_bytes: int, where: str) -> bytes:
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError as error:
        raise AuditFileError(f"{where}: {value!r} is not in hexadecimal") from error
    if len(raw) != num_bytes or raw.hex() != value:
        raise AuditFileError(f"{where}: {num_bytes} bytes in lower-case hexadecimal belong there")
    return raw
