"""Every table, so that importing this module completes the metadata."""

from backend.db.base import Base
from backend.db.models.artifact import Artifact, ArtifactKind
from backend.db.models.audit import AuditHead, AuditRow, Outcome
from backend.db.models.dataset import Dataset
from backend.db.models.event import Event
from backend.db.models.federation import Federation, Invitation, PartyKind, UsedNonce
from backend.db.models.gateway import GatewaySign, Meeting
from backend.db.models.job import (
    Approval,
    Desired,
    Job,
    JobSilo,
    JobState,
    Lease,
    Metric,
    Round,
    RoundState,
)
from backend.db.models.job_log import JobLogLine
from backend.db.models.model import Model, ModelState
from backend.db.models.organization import Membership, Organization, Project, ProjectRole, Role
from backend.db.models.party import Party, PartySession, PartyStatus, Silo, Worker
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
    "Dataset",
    "Desired",
    "Event",
    "Federation",
    "GatewaySign",
    "Invitation",
    "Job",
    "JobLogLine",
    "JobSilo",
    "JobState",
    "Lease",
    "Meeting",
    "Membership",
    "Metric",
    "Model",
    "ModelState",
    "Organization",
    "Outcome",
    "Party",
    "PartyKind",
    "PartySession",
    "PartyStatus",
    "Project",
    "ProjectRole",
    "Role",
    "Round",
    "RoundState",
    "SignInAttempt",
    "Silo",
    "TokenKind",
    "Upload",
    "UsedNonce",
    "User",
    "Worker",
]
