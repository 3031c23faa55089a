"""Enrolment and log-in on the wire, as docs/control-plane.md has them in sections 4 to 6."""

from typing import Literal

from pydantic import Field

from splitlearn.control_plane.schemas import Answer, Base64, Body, ProcessId
from splitlearn.spec import Name

PartyWord = Literal["silo", "worker"]


class EnrolBody(Body):
    """``POST /enrolment``: a new key, and the proof that its holder was invited."""

    secret: Base64
    fingerprint: str
    public_key: Base64
    signature: Base64


class EnrolAnswer(Answer):
    """Where the enrolment stands.

    Attributes:
        status: ``enrolled``, or ``pending`` until a person has signed with the offline root.
    """

    kind: PartyWord
    name: str
    status: str
    certificate: Base64 | None
    root_public_key: Base64


class NonceAnswer(Answer):
    """``GET /login/nonce``."""

    nonce: str
    audience: str


class LoginBody(Body):
    """``POST /login``."""

    kind: PartyWord
    name: Name
    nonce: str
    boot_id: ProcessId
    previous_boot_id: ProcessId | None
    signature: Base64


class LoginAnswer(Answer):
    """A session."""

    token: str = Field(repr=False)
    epoch: int


class RotationBody(Body):
    """``POST /rotation``: a new key, and both keys' signatures."""

    kind: PartyWord
    name: Name
    nonce: str
    public_key: Base64
    signature: Base64
    new_signature: Base64


class RotatedBody(Body):
    """``POST /rotation/finish``."""

    kind: PartyWord
    name: Name
    nonce: str
    signature: Base64


class RotationAnswer(Answer):
    """The new key's certificate; None while a person has to sign it."""

    certificate: Base64 | None


class SessionAnswer(Answer):
    """``POST /session/heartbeat``."""

    epoch: int
    revocation_number: int


class FederationAnswer(Answer):
    """``GET /federation``: what certificates are checked with."""

    audience: str
    root_public_key: Base64
    revocation_number: int
    revocation_list: Base64 | None


class ErrorAnswer(Answer):
    """What the control plane says when it refuses."""

    code: str
    message: str
    remedy: str | None = None
