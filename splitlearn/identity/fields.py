"""Strict reading of small binary documents: certificates, lists, handshake bodies.

All integers are unsigned and big-endian. There is one encoding of every document: no optional
field, no padding, no trailing byte.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime

from splitlearn.errors import IdentityError, LocalProtocolError, TrunklineError

MAX_NAME_BYTES = 64
MAX_UNIX_SECONDS = 253_402_300_799
"""The last second of the year 9999, beyond which Python has no dates."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)


def is_name(text: str) -> bool:
    """Tell whether a text may name a silo, worker, signer or job: 1 to 64 of a-z 0-9 . _ -."""
    return _NAME.fullmatch(text) is not None


def encode_name(name: str) -> bytes:
    """Return one byte of length and the name in ASCII."""
    encoded = name.encode("ascii")
    return bytes([len(encoded)]) + encoded


def unix_seconds(moment: datetime) -> int:
    """Return the whole seconds since 1970, UTC.

    Raises:
        LocalProtocolError: Our code passed a moment without a time zone.
    """
    if moment.tzinfo is None:
        raise LocalProtocolError(f"the moment {moment} has no time zone; pass datetime.now(tz=UTC)")
    return int(moment.timestamp() // 1)


def whole_seconds(moment: datetime) -> datetime:
    """Return the moment in UTC without its fraction of a second, as documents store it."""
    return datetime.fromtimestamp(unix_seconds(moment), tz=UTC)


class FieldReader:
    """Reads fields off the front of a document and refuses whatever is left over.

    Args:
        data: The whole document.
        refuse: The error to raise for malformed bytes.
        what: What the document should be, for the message: "certificate".
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        *,
        refuse: Callable[[str], TrunklineError] = IdentityError,
        what: str,
    ) -> None:
        self._data = bytes(data)
        self._refuse = refuse
        self._what = what
        self._position = 0

    def take(self, length: int) -> bytes:
        """Return the next bytes, exactly as many as asked for."""
        end = self._position + length
        if end > len(self._data):
            raise self._refuse(f"the {self._what} ends after {len(self._data)} bytes; {end} were expected")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def unsigned(self, length: int) -> int:
        """Return the next unsigned integer of so many bytes."""
        return int.from_bytes(self.take(length), "big")

    def expect(self, literal: bytes) -> None:
        """Refuse the document unless it goes on with these very bytes."""
        found = self.take(len(literal))
        if found != literal:
            raise self._refuse(f"the {self._what} has {found!r} where {literal!r} belongs")

    def name(self) -> str:
        """Return the next name: a byte of length and so many characters."""
        raw = self.take(self.unsigned(1))
        text = raw.decode("latin-1")
        if not is_name(text):
            raise self._refuse(
                f"the {self._what} holds the name {text!r}; a name is 1 to 64 of a-z 0-9 . _ -"
            )
        return text

    def moment(self) -> datetime:
        """Return the next moment: u64 seconds since 1970, UTC."""
        seconds = self.unsigned(8)
        if seconds > MAX_UNIX_SECONDS:
            raise self._refuse(f"the {self._what} holds a moment after the year 9999: {seconds} s")
        return datetime.fromtimestamp(seconds, tz=UTC)

    def finish(self) -> None:
        """Refuse trailing bytes."""
        left = len(self._data) - self._position
        if left:
            raise self._refuse(f"the {self._what} is followed by {left} bytes that do not belong to it")
