"""Identities and terms of a simulated federation: a real root, real certificates, thrown away at the end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from splitlearn.channel import Terms
from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore
from splitlearn.spec import JobSpec

WORKER_NAME = "worker-1"
_VALIDITY = timedelta(days=30)


@dataclass(frozen=True)
class Roster:
    """Who takes part, and what each was told beforehand.

    Attributes:
        trust: The federation's root, pinned by everybody.
        worker: The worker's identity.
        silos: Each silo's identity by name.
        terms: What worker and silo agree on, by silo.
    """

    trust: TrustStore
    worker: Identity
    silos: dict[str, Identity]
    terms: dict[str, Terms]


def enrol(spec: JobSpec, *, epoch: int = 1) -> Roster:
    """Make a federation root and certify a worker and every silo of the job.

    Args:
        spec: The job.
        epoch: The worker's lease.
    """
    root = FederationRoot.generate()
    digest = spec.digest()
    return Roster(
        trust=TrustStore(root.public_key),
        worker=_certified(root, CertificateKind.WORKER, WORKER_NAME),
        silos={silo.name: _certified(root, CertificateKind.SILO, silo.name) for silo in spec.silos},
        terms={
            silo.name: Terms(
                job_id=spec.name,
                replica=spec.replica_of(silo.name),
                epoch=epoch,
                spec_digest=digest,
                silo_name=silo.name,
                worker_name=WORKER_NAME,
            )
            for silo in spec.silos
        },
    )


def _certified(root: FederationRoot, kind: CertificateKind, name: str) -> Identity:
    key = SigningKey.generate()
    now = datetime.now(tz=UTC)
    certificate = root.issue(key.public_key, kind=kind, name=name, not_before=now, not_after=now + _VALIDITY)
    return Identity(certificate, key)
