"""Organisations, their projects, and who belongs to them."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backend.db.base import MAX_WORD, Base, Id, Name, one_of


class Role(StrEnum):
    """What a member of an organisation may do; ``backend.auth.permissions`` says it in detail."""

    ADMIN = "admin"
    RESEARCHER = "researcher"
    AUDITOR = "auditor"


class FactorRule(StrEnum):
    """Who must have a second factor to sign in with a password."""

    OPTIONAL = "optional"
    ADMINS = "admins"
    EVERYBODY = "everybody"


class Organization(Base):
    """A tenant: nobody outside sees its projects, silos, workers or jobs.

    Attributes:
        second_factor: Of whom one is demanded; see ``FactorRule``.
    """

    __tablename__ = "organizations"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    second_factor: Mapped[str] = mapped_column(
        String(MAX_WORD), default=FactorRule.OPTIONAL.value, server_default=FactorRule.OPTIONAL.value
    )


class Project(Base):
    """What jobs, models and artifacts belong to.

    Attributes:
        last_event_number: Number of the newest event; raised under this row's lock, so that events
            become visible in the order of their numbers.
        served_at: When one of its jobs gave a worker back last; None: never.
    """

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[Name]
    created_at: Mapped[datetime]
    last_event_number: Mapped[int] = mapped_column(default=0, server_default="0")
    served_at: Mapped[datetime | None]


class Membership(Base):
    """One user's role in one organisation."""

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("user_id", "organization_id"),)

    id: Mapped[Id]
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), index=True)
    role: Mapped[Role] = mapped_column(one_of(Role))
    created_at: Mapped[datetime]
    organization: Mapped[Organization] = relationship(lazy="raise_on_sql")


class ProjectRole(Base):
    """One member's role in one project, instead of the organisation's."""

    __tablename__ = "project_roles"

    membership_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("memberships.id", ondelete="CASCADE"), primary_key=True
    )
    project_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[Role] = mapped_column(one_of(Role))
    created_at: Mapped[datetime]
