"""The 64 clear bytes before every frame's body: what the relay may see and the seal authenticates."""

import hashlib
import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Self

from splitlearn.errors import LocalProtocolError
from splitlearn.wire.errors import FrameError

Buffer = bytes | bytearray | memoryview
"""What bytes are read from; contiguous."""
MAGIC = b"TRK1"
TAG_BYTES = 16
"""Bytes that AES-256-GCM adds to a plaintext."""
JOB_TAG_BYTES = 16
_JOB_TAG_CONTEXT = b"trunkline/job-tag/v1\0"
_LAYOUT = struct.Struct(">4sBBHII16sIIQQII")
ENVELOPE_BYTES = _LAYOUT.size


class Kind(IntEnum):
    """What a frame's body is: one of three handshake messages, or a sealed fragment of a message."""

    HELLO = 1
    REPLY = 2
    CONFIRM = 3
    SEALED = 4


class Direction(IntEnum):
    """Who sent a frame."""

    SILO_TO_TRUNK = 0
    TRUNK_TO_SILO = 1

    @property
    def opposite(self) -> "Direction":
        """The other direction."""
        return Direction(1 - self)


def job_tag(job_id: str) -> bytes:
    """Return the 16 bytes that stand for a job in every envelope: its hash under a context of its own."""
    return hashlib.sha256(_JOB_TAG_CONTEXT + job_id.encode()).digest()[:JOB_TAG_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The clear header of one frame, 64 bytes, big-endian, in this order after the magic ``TRK1``.

    The sealed session takes the packed bytes as associated data, so a relay can read them but not
    change them. Handshake frames leave the fields from ``round`` on at 0.

    Attributes:
        kind: u8, what the body is.
        direction: u8, who sent it.
        replica: u16, which of the job's trunks.
        body_bytes: u32, bytes that follow the envelope, the seal's tag included.
        epoch: u32, the lease under which the trunk runs.
        job_tag: 16 bytes, see :func:`job_tag`.
        round: u32, the round that the message belongs to, from 1.
        step: u32, the global step that the message belongs to.
        counter: u64, frames sealed before in this session and direction.
        message_seq: u64, number of the message in this job and direction, from 1; survives reconnection.
        fragment_offset: u32, where the fragment begins in the message's plaintext, in bytes.
        message_bytes: u32, plaintext bytes of the whole message.
    """

    kind: Kind
    direction: Direction
    replica: int = 0
    body_bytes: int
    epoch: int
    job_tag: bytes
    round: int = 0
    step: int = 0
    counter: int = 0
    message_seq: int = 0
    fragment_offset: int = 0
    message_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.job_tag) != JOB_TAG_BYTES:
            raise LocalProtocolError(f"job_tag has {len(self.job_tag)} bytes, it needs {JOB_TAG_BYTES}")

    def pack(self) -> bytes:
        """Return the 64 bytes.

        Raises:
            LocalProtocolError: A number does not fit its field; our fault.
        """
        try:
            return _LAYOUT.pack(MAGIC, *_values(self))
        except struct.error as error:
            raise LocalProtocolError(f"{self} does not fit the envelope: {error}") from error

    @classmethod
    def unpack(cls, header: Buffer) -> Self:
        """Read the 64 bytes; sizes are not judged here but by the frame decoder's limits.

        Raises:
            FrameError: Not 64 bytes, another magic, an unknown kind or direction, or a fragment
                that begins behind its message's end; the peer's fault.
        """
        if len(header) != ENVELOPE_BYTES:
            raise FrameError(f"an envelope has {ENVELOPE_BYTES} bytes, not {len(header)}")
        magic, *values = _LAYOUT.unpack(header)
        if magic != MAGIC:
            raise FrameError(f"a frame begins with {MAGIC!r}, not {magic!r}; is the peer a Trunkline party?")
        facts = dict(zip(_FIELDS, values, strict=True))
        try:
            facts["kind"], facts["direction"] = Kind(facts["kind"]), Direction(facts["direction"])
        except ValueError as error:
            raise FrameError(f"{error}; does the peer run another version?") from None
        envelope = cls(**facts)
        if envelope.fragment_offset > envelope.message_bytes:
            raise FrameError(
                f"a fragment begins at {envelope.fragment_offset} of a message of "
                f"{envelope.message_bytes} bytes"
            )
        return envelope


_FIELDS = tuple(field.name for field in fields(Envelope))
_values = attrgetter(*_FIELDS)
