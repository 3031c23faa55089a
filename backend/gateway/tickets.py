"""Short-lived tickets: who may sit on which side of which conversation, signed by the control plane.

The layout is normative in ``docs/gateway.md``. The gateway holds the public key only.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Protocol

from backend.gateway.refusal import Refusal
from splitlearn.errors import IdentityError
from splitlearn.identity import (
    SIGNATURE_BYTES,
    Context,
    FieldReader,
    PublicKey,
    SignatureError,
    SigningKey,
    encode_name,
    is_name,
)
from splitlearn.identity.fields import unix_seconds, whole_seconds
from splitlearn.link import CloseReason
from splitlearn.wire import Direction

MAGIC: Final = b"TKG2"
MAX_TICKET_CHARACTERS: Final = 464
"""The longest ticket has 343 bytes, 458 characters."""
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9_-]{0,64}")


class Role(Enum):
    """Which side of a conversation a party sits on; the value is its code in a ticket."""

    SILO = 1
    WORKER = 2

    @property
    def word(self) -> str:
        """The role's name in logs and documents."""
        return self.name.lower()

    @property
    def other(self) -> "Role":
        """The other side."""
        return Role.WORKER if self is Role.SILO else Role.SILO

    @property
    def direction(self) -> Direction:
        """The direction of the frames that this side sends."""
        return Direction.SILO_TO_TRUNK if self is Role.SILO else Direction.TRUNK_TO_SILO


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is paired: one silo and one worker, in one epoch of one replica of one job.

    Raises:
        IdentityError: A name or number is out of range.
    """

    job: str
    replica: int
    silo: str
    worker: str
    epoch: int

    def __post_init__(self) -> None:
        for name in (self.job, self.silo, self.worker):
            if not is_name(name):
                raise IdentityError(f"the name {name!r} is not 1 to 64 of a-z 0-9 . _ -")
        if not 0 <= self.replica < 1 << 16 or not 0 <= self.epoch < 1 << 32:
            raise IdentityError(f"replica {self.replica} or epoch {self.epoch} does not fit 16 or 32 bits")


@dataclass(frozen=True, slots=True)
class Seat:
    """One party's part in one replica of a job: what has an epoch, and can be revoked."""

    job: str
    replica: int
    role: Role
    party: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to sit on one side of a conversation.

    Attributes:
        conversation: Which.
        role: The side.
        expires_at: In whole seconds; decides about admission only, not how long a connection lives.
        correlation_id: Of the job, for log lines alone; may be empty.

    Raises:
        IdentityError: The correlation id could be taken for something else in a log.
    """

    conversation: Conversation
    role: Role
    expires_at: datetime
    correlation_id: str = ""

    def __post_init__(self) -> None:
        if _CORRELATION_ID.fullmatch(self.correlation_id) is None:
            raise IdentityError(
                f"the correlation id {self.correlation_id[:80]!r} is not at most 64 of A-Z a-z 0-9 _ -"
            )

    @property
    def party(self) -> str:
        """Name of the silo or worker that this ticket is for."""
        return self.conversation.silo if self.role is Role.SILO else self.conversation.worker

    @property
    def seat(self) -> Seat:
        """Whose epoch the control plane may raise."""
        return Seat(self.conversation.job, self.conversation.replica, self.role, self.party)

    def signed_part(self) -> bytes:
        """Return the bytes that the control plane signs: everything before the signature."""
        told = self.conversation
        return b"".join(
            (
                MAGIC,
                bytes([self.role.value]),
                encode_name(told.job),
                told.replica.to_bytes(2, "big"),
                encode_name(told.silo),
                encode_name(told.worker),
                told.epoch.to_bytes(4, "big"),
                unix_seconds(self.expires_at).to_bytes(8, "big"),
                encode_name(self.correlation_id),
            )
        )


def issue_ticket(
    conversation: Conversation,
    *,
    role: Role,
    now: datetime,
    seconds: int,
    key: SigningKey,
    correlation_id: str = "",
) -> str:
    """Return a signed ticket as text, for the control plane to hand out.

    Args:
        conversation: Which one may be joined.
        role: On which side.
        now: The control plane's time.
        seconds: Validity; a minute or two is enough, for every connection gets a new one.
        key: The control plane's key for tickets; the gateway is told its public half.
        correlation_id: Of the job, for the gateway's log.
    """
    ticket = Ticket(conversation, role, whole_seconds(now) + timedelta(seconds=seconds), correlation_id)
    signed = ticket.signed_part()
    return _to_text(signed + key.sign(Context.GATEWAY_TICKET, signed))


class TicketVerifier(Protocol):
    """Tells whether a ticket is the control plane's and still good."""

    def verify(self, text: str, *, now: datetime) -> Ticket:
        """Return the ticket.

        Raises:
            Refusal: ``MALFORMED_TICKET``, ``WRONG_SIGNATURE`` or ``EXPIRED_TICKET``.
        """


class KeyVerifier:
    """Verifies with the control plane's public key.

    Args:
        public_key: The key.
        tolerance_seconds: By how much this machine's clock may be ahead of the control plane's.
    """

    def __init__(self, public_key: PublicKey, *, tolerance_seconds: float = 5.0) -> None:
        self._public_key = public_key
        self._tolerance = timedelta(seconds=tolerance_seconds)

    def verify(self, text: str, *, now: datetime) -> Ticket:
        """See :class:`TicketVerifier`."""
        data = _from_text(text)
        signed, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        try:
            ticket = _parse(signed)
        except IdentityError as error:
            raise Refusal(CloseReason.MALFORMED_TICKET, error.message) from error
        try:
            self._public_key.verify(Context.GATEWAY_TICKET, signed, signature)
        except SignatureError as error:
            raise Refusal(CloseReason.WRONG_SIGNATURE, error.message) from error
        if now > ticket.expires_at + self._tolerance:
            raise Refusal(CloseReason.EXPIRED_TICKET, f"it expired at {ticket.expires_at.isoformat()}")
        return ticket


def _parse(signed: bytes) -> Ticket:
    reader = FieldReader(signed, what="ticket")
    reader.expect(MAGIC)
    role = reader.unsigned(1)
    if role not in {known.value for known in Role}:
        raise IdentityError(f"the ticket is for role {role}; known are 1 (silo) and 2 (worker)")
    job, replica, silo, worker = reader.name(), reader.unsigned(2), reader.name(), reader.name()
    conversation = Conversation(job, replica, silo, worker, epoch=reader.unsigned(4))
    ticket = Ticket(
        conversation, Role(role), reader.moment(), reader.take(reader.unsigned(1)).decode("latin-1")
    )
    reader.finish()
    return ticket


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _from_text(text: str) -> bytes:
    """Return the bytes; refuses every text but the one that :func:`_to_text` makes of them."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(CloseReason.MALFORMED_TICKET, "it is not base64url") from error
    if len(text) > MAX_TICKET_CHARACTERS or _to_text(data) != text:
        raise Refusal(
            CloseReason.MALFORMED_TICKET, "it is longer than any ticket, or not in its one encoding"
        )
    return data
