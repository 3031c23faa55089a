"""Every table, so that importing this module completes the metadata."""

from backend.db.base import Base
from backend.db.models.artifact import Artifact, ArtifactKind
from backend.db.models.audit import AuditHead, AuditRow, Outcome
from backend.db.models.dataset import Dataset
from backend.db.models.event import Event
from backend.db.models.federation import (
    CertificateWarning,
    Federation,
    Invitation,
    PartyKind,
    PendingRevocation,
    UsedNonce,
)
from backend.db.models.gateway import GatewaySign, Meeting
from backend.db.models.generation import Generation, GenerationState
from backend.db.models.job import (
    Approval,
    Desired,
    Job,
    JobSilo,
    JobState,
    Kept,
    Lease,
    Metric,
    Round,
    RoundState,
)
from backend.db.models.job_log import JobLogLine
from backend.db.models.model import Model, ModelState
from backend.db.models.notice import ChannelKind, Notice, NoticeChannel
from backend.db.models.organization import FactorRule, Membership, Organization, Project, ProjectRole, Role
from backend.db.models.party import Party, PartySession, PartyStatus, Silo, Worker
from backend.db.models.sign_in import OpenIdIdentity, RecoveryCode, SecondFactor
from backend.db.models.upload import Upload
from backend.db.models.user import ApiToken, SignInAttempt, TokenKind, User

__all__ = [
    "ApiToken",
    "Approval",
    "Artifact",
    "ArtifactKind",
    "AuditHead",
    "AuditRow",
    "Base",
    "CertificateWarning",
    "ChannelKind",
    "Dataset",
    "Desired",
    "Event",
    "FactorRule",
    "Federation",
    "GatewaySign",
    "Generation",
    "GenerationState",
    "Invitation",
    "Job",
    "JobLogLine",
    "JobSilo",
    "JobState",
    "Kept",
    "Lease",
    "Meeting",
    "Membership",
    "Metric",
    "Model",
    "ModelState",
    "Notice",
    "NoticeChannel",
    "OpenIdIdentity",
    "Organization",
    "Outcome",
    "Party",
    "PartyKind",
    "PartySession",
    "PartyStatus",
    "PendingRevocation",
    "Project",
    "ProjectRole",
    "RecoveryCode",
    "Role",
    "Round",
    "RoundState",
    "SecondFactor",
    "SignInAttempt",
    "Silo",
    "TokenKind",
    "Upload",
    "UsedNonce",
    "User",
    "Worker",
]
