"""The federation in the API."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from backend.schemas import Answer, Base64, Body
from splitlearn.identity import Fingerprint, PublicKey

_MAX_LIST_BASE64 = 700_000


class FederationAnswer(Answer):
    """What every party checks certificates with.

    Attributes:
        audience: This server's address, as it stands in invitations and signatures.
        fingerprint: Compare it with the one in your invitation before you believe the key.
        root_public_key: 32 bytes.
        embedded: Whether the root lies beside this server.
        revocation_number: Number of the newest list; 0 before the first.
        revocation_list: The list as the root signed it.
        ticket_public_key: What the gateway verifies tickets with, in hexadecimal.
    """

    audience: str
    fingerprint: str
    root_public_key: Base64
    embedded: bool
    revocation_number: int
    revocation_list: Base64 | None
    ticket_public_key: str


class SpecSignerAnswer(Answer):
    """This server's key for job specifications: the file that ``trunkline root sign`` reads.

    Attributes:
        certificate: The root's word for it; None while a person has to sign it.
        current_until: Until when the certificate is valid that signs now, maybe an earlier key's; None: none.
    """

    format: Literal["trunkline/certificate-request/v1"] = "trunkline/certificate-request/v1"
    kind: Literal["spec-signer"] = "spec-signer"
    name: str
    public_key: Base64
    certificate: Base64 | None
    current_until: datetime | None


class PendingRevocationAnswer(Answer):
    """A certificate that this server refuses, and that is not on the root's list yet."""

    serial: str
    kind: str
    name: str
    since: datetime


class RevocationsAnswer(Answer):
    """The newest revocation list, in the form that ``trunkline root revoke --previous`` reads.

    Attributes:
        number: Of that list; 0 before the first.
        revocation_list: As the root signed it.
        pending: What the root has still to sign.
    """

    number: int
    revocation_list: Base64 | None
    pending: list[PendingRevocationAnswer]


class SpecSignerBody(Body):
    """A certificate that an offline root signed."""

    certificate: Annotated[Base64, Field(min_length=1, max_length=256)]


class RevocationListBody(Body):
    """A list signed by an offline root."""

    revocation_list: Annotated[Base64, Field(min_length=1, max_length=_MAX_LIST_BASE64)]


def fingerprint_text(public_key: bytes) -> str:
    """Return a root's fingerprint as people read it."""
    return str(Fingerprint.of(PublicKey(public_key)))
