"""A worker believes a specification that a spec-signer vouches for, and asks once more where none does."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from splitlearn.control_plane.schemas import DesiredState, LeaseAnswer
from splitlearn.errors import IdentityError
from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore, sign_spec
from splitlearn.spec import JobSpec
from worker.verification import vouched_spec

SPEC = JobSpec.parse({"model": "m", "silos": [{"name": "a", "dataset": "d"}]})


@dataclass
class Federation:
    """A root, and what it has revoked."""

    root: FederationRoot = field(default_factory=FederationRoot.generate)
    revoked: list[int] = field(default_factory=list)

    def signer(self) -> Identity:
        key, now = SigningKey.generate(), datetime.now(tz=UTC)
        certificate = self.root.issue(
            key.public_key,
            kind=CertificateKind.SPEC_SIGNER,
            name="control-plane",
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(days=1),
        )
        return Identity(certificate, key)

    def revoke(self, signer: Identity) -> None:
        self.revoked.append(signer.certificate.serial)

    def trust(self) -> TrustStore:
        if not self.revoked:
            return TrustStore(self.root.public_key)
        listed = self.root.revoke(self.revoked, issued_at=datetime.now(tz=UTC))
        return TrustStore(self.root.public_key, revocations=listed)


def lease_signed_by(signer: Identity) -> LeaseAnswer:
    raw = SPEC.canonical_bytes()
    return LeaseAnswer(
        job="00000000-0000-0000-0000-000000000001",
        name="j",
        replica=0,
        epoch=1,
        valid_seconds=1,
        renew_seconds=1,
        desired=DesiredState.RUN,
        spec=base64.b64encode(raw).decode(),
        signature=base64.b64encode(sign_spec(raw, signer=signer).to_bytes()).decode(),
        gateway_url="ws://127.0.0.1",
    )


def ask(federation: Federation, told: Sequence[LeaseAnswer]) -> tuple[JobSpec, int]:
    """Return the specification, and how often the lease was taken again."""
    answers = list(told[1:])

    async def ask_again() -> LeaseAnswer:
        return answers.pop(0)

    spec = asyncio.run(vouched_spec(told[0], trust=federation.trust, ask_again=ask_again))
    return spec, len(told) - 1 - len(answers)


def test_what_is_vouched_for_is_not_asked_for_again() -> None:
    federation = Federation()
    lease = lease_signed_by(federation.signer())
    assert ask(federation, [lease, lease]) == (SPEC, 0)


def test_a_signer_that_was_rotated_a_moment_ago_ends_nothing() -> None:
    federation = Federation()
    old, new = federation.signer(), federation.signer()
    federation.revoke(old)
    assert ask(federation, [lease_signed_by(old), lease_signed_by(new)]) == (SPEC, 1)


def test_what_nobody_vouches_for_is_refused() -> None:
    federation = Federation()
    stranger = lease_signed_by(Federation().signer())
    with pytest.raises(IdentityError):
        ask(federation, [stranger, stranger])
