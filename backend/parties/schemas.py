"""Invitations, enrolment and log-in in the API."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from backend.db.models import PartyKind, PartyStatus
from backend.schemas import Answer, Base64, Body, Name
from backend.settings import MAX_INVITATION_HOURS

Key = Annotated[Base64, Field(min_length=44, max_length=44)]
Signature = Annotated[Base64, Field(min_length=88, max_length=88)]
BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class InviteBody(Body):
    """Whom to invite.

    Attributes:
        name: The silo's or worker's name, unique in the federation.
        valid_hours: The server's default if left out.
    """

    name: Name
    valid_hours: int | None = Field(default=None, ge=1, le=MAX_INVITATION_HOURS)


class InvitationAnswer(Answer):
    """An invitation without its secret."""

    id: uuid.UUID
    kind: PartyKind
    name: str
    created_by: str
    created_at: datetime
    expires_at: datetime


class CreatedInvitationAnswer(InvitationAnswer):
    """A new invitation.

    Attributes:
        invitation: The text for the invited party, shown this once. Whoever has it may enrol: send it
            safely, and let the fingerprint be compared by another way.
        fingerprint: The federation root's.
    """

    invitation: str
    fingerprint: str


class DeviceAnswer(Answer):
    """A worker's device, as it was when the worker told of it."""

    id: str = ""
    kind: str
    name: str
    total_memory_bytes: int
    free_memory_bytes: int


class PartyAnswer(Answer):
    """A silo or worker.

    Attributes:
        serial: Of its certificate, in decimal.
        certificate_until: When it ends; 48 hours later the party is refused.
        certificate_ends_soon: Whether that is less than 30 days away: time for the party to rotate its key.
        is_rotating: Whether a new key is certified, or waits for that, and is not in use yet.
        revocation: ``signed`` once it is on the root's list, until then ``pending_signature``; None if valid.
        epoch: Raised whenever another process takes over.
        drained_at: Since when an admin keeps this worker from further rounds; None: it takes them.
        devices: What this worker computes on, as it told last; memory in bytes.
    """

    name: str
    status: PartyStatus
    serial: str | None
    certificate_until: datetime | None
    certificate_ends_soon: bool
    is_rotating: bool
    revocation: Literal["pending_signature", "signed"] | None
    epoch: int
    enrolled_at: datetime
    revoked_at: datetime | None
    last_seen_at: datetime | None
    drained_at: datetime | None = None
    devices: list[DeviceAnswer] = Field(default_factory=list)


class DrainAnswer(Answer):
    """Whether a worker takes rounds: since when it does not, or None."""

    name: str
    drained_at: datetime | None


class RequestFile(Answer):
    """What an offline root signs: the same bytes as the file that ``trunkline root sign`` reads."""

    format: Literal["trunkline/certificate-request/v1"] = "trunkline/certificate-request/v1"
    kind: PartyKind
    name: str
    public_key: Base64


class CertificateBody(Body):
    """A certificate that an offline root signed."""

    certificate: Annotated[Base64, Field(min_length=1, max_length=256)]


class EnrolBody(Body):
    """A new party's key, and the proof that its holder was invited.

    Attributes:
        secret: The invitation's, 32 bytes.
        fingerprint: The root that the invitation pins.
        public_key: The new key, 32 bytes.
        signature: In context ``trunkline/enrolment/v1``, over the enrolment statement.
    """

    secret: Key
    fingerprint: str = Field(min_length=1, max_length=80)
    public_key: Key
    signature: Signature


class EnrolAnswer(Answer):
    """Where the enrolment stands; send the same request again while it is pending.

    Attributes:
        certificate: Signed by the root; None while it waits for a person with the offline root.
        root_public_key: To be checked against the pinned fingerprint.
    """

    kind: PartyKind
    name: str
    status: PartyStatus
    certificate: Base64 | None
    root_public_key: Base64


class NonceAnswer(Answer):
    """What to sign next, within so many seconds."""

    nonce: str
    audience: str
    valid_seconds: int


class LoginBody(Body):
    """A signed nonce.

    Attributes:
        boot_id: 16 random bytes in hexadecimal, made at the start of this process.
        previous_boot_id: The last process's, from the state folder; left out at the first start.
        signature: In the context of the kind, over the log-in statement.
    """

    kind: PartyKind
    name: Name
    nonce: str = Field(min_length=1, max_length=128)
    boot_id: BootId
    previous_boot_id: BootId | None = None
    signature: Signature


class RotationBody(Body):
    """A new key for a party.

    Attributes:
        public_key: The new key, 32 bytes.
        signature: The old key's, in context ``trunkline/key-rotation/v1``, over the rotation statement.
        new_signature: The new key's, over the same.
    """

    kind: PartyKind
    name: Name
    nonce: str = Field(min_length=1, max_length=128)
    public_key: Key
    signature: Signature
    new_signature: Signature


class RotatedBody(Body):
    """A party's word that its new key is in use.

    Attributes:
        signature: The new key's, in context ``trunkline/key-rotated/v1``.
    """

    kind: PartyKind
    name: Name
    nonce: str = Field(min_length=1, max_length=128)
    signature: Signature


class RotationAnswer(Answer):
    """Where the rotation stands.

    Attributes:
        certificate: The new key's; None while it waits for a person with the offline root.
    """

    certificate: Base64 | None


class LoginAnswer(Answer):
    """A session; the token is shown this once.

    Attributes:
        epoch: Keep it: what carries a lower one comes from an older process.
    """

    token: str
    expires_at: datetime
    epoch: int


class SessionAnswer(Answer):
    """The caller's session."""

    kind: PartyKind
    name: str
    epoch: int
    expires_at: datetime
    revocation_number: int = Field(description="Fetch /federation when it is higher than the one stored.")
