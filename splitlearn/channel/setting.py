"""What one side brings to a handshake, and the constants of its role."""

from dataclasses import dataclass
from datetime import datetime

from splitlearn.channel.schedule import Stage, Use
from splitlearn.channel.seen import SeenHandshakes
from splitlearn.channel.terms import ResumePoint, Terms
from splitlearn.identity import Certificate, CertificateKind, Context, Identity, TrustStore
from splitlearn.wire import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Constants of one side of the handshake."""

    kind: CertificateKind
    sending: Direction
    context: Context
    stage: Stage
    seal_use: Use
    mac_use: Use
    traffic_use: Use

    def name(self, terms: Terms) -> str:
        """Return whom the terms name in this role."""
        return terms.silo_name if self.kind is CertificateKind.SILO else terms.worker_name


SILO = Role(
    kind=CertificateKind.SILO,
    sending=Direction.SILO_TO_TRUNK,
    context=Context.HANDSHAKE_SILO,
    stage=Stage.CONFIRM,
    seal_use=Use.CONFIRM_SEAL,
    mac_use=Use.CONFIRM_MAC,
    traffic_use=Use.SILO_TO_TRUNK,
)
WORKER = Role(
    kind=CertificateKind.WORKER,
    sending=Direction.TRUNK_TO_SILO,
    context=Context.HANDSHAKE_WORKER,
    stage=Stage.REPLY,
    seal_use=Use.REPLY_SEAL,
    mac_use=Use.REPLY_MAC,
    traffic_use=Use.TRUNK_TO_SILO,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one side brings to a handshake.

    Raises:
        IdentityError: The peer would refuse our own certificate: not of this root, not for this role
            or name, out of date, or revoked.
    """

    role: Role
    terms: Terms
    identity: Identity
    trust: TrustStore
    resume: ResumePoint
    now: datetime
    seen: SeenHandshakes

    def __post_init__(self) -> None:
        self.verify(self.role, self.identity.certificate)

    def verify(self, role: Role, certificate: Certificate) -> None:
        """Refuse a certificate that is not the one that the terms name in a role.

        Raises:
            IdentityError: The subclass says why.
        """
        self.trust.verify(certificate, kind=role.kind, name=role.name(self.terms), now=self.now)
