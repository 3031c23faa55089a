"""What a worker checks of a job before it loads anything of it."""

import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from splitlearn.errors import IdentityError
from splitlearn.identity import SpecSignature, TrustStore, verify_spec
from splitlearn.spec import JobSpec

_log = structlog.get_logger("worker.trunk")


class Told(Protocol):
    """A lease as the control plane tells it, as far as it is verified here."""

    @property
    def spec(self) -> str:
        """Canonical bytes of the specification, in base 64."""

    @property
    def signature(self) -> str:
        """The spec-signer's word, in base 64."""


async def vouched_spec(
    lease: Told, *, trust: Callable[[], TrustStore], ask_again: Callable[[], Awaitable[Told]]
) -> JobSpec:
    """Return the job's specification, if a spec-signer of the federation vouches for its very bytes.

    The signer's key may be rotated between the moment in which the lease was told and this one. The control
    plane then has the new key's signature, so a refused one is asked for once more.

    Args:
        lease: As it was told.
        trust: Returns whom this worker believes now.
        ask_again: Takes the same lease again.

    Raises:
        IdentityError: Nobody vouches for it, also at the second time; the subclass says why.
        SpecError: The bytes are no specification of this version.
        UnservedError: It asks for what is not served.
    """
    try:
        return _verified(lease, trust())
    except IdentityError as error:
        _log.info("signature_refused", code=error.code, reason=error.message)
    return _verified(await ask_again(), trust())


def _verified(lease: Told, trust: TrustStore) -> JobSpec:
    raw = base64.b64decode(lease.spec)
    signature = SpecSignature.from_bytes(base64.b64decode(lease.signature))
    verify_spec(raw, signature, trust=trust, now=datetime.now(tz=UTC))
    spec = JobSpec.parse(raw)
    spec.refuse_unserved()
    return spec
