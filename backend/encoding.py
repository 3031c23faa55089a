"""Bytes in JSON: standard base 64, refused with a sentence."""

import base64
import binascii

from backend.errors import InvalidRequestError


def to_base64(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, *, field: str) -> bytes:
    """Return the bytes of a field.

    Raises:
        InvalidRequestError: Not base 64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"{field}: not in standard base 64") from error
