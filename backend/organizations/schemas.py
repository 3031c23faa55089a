"""Organisations and projects in the API."""

from datetime import datetime

from backend.db.models import FactorRule, Role
from backend.schemas import Answer, Body, Name


class OrganizationAnswer(Answer):
    """An organisation."""

    name: str
    created_at: datetime
    second_factor: FactorRule


class ChangeOrganizationBody(Body):
    """Of whom the organisation demands a second factor."""

    second_factor: FactorRule


class CreateProjectBody(Body):
    """A project to be made."""

    name: Name


class ProjectAnswer(Answer):
    """A project: what jobs, models and artifacts belong to."""

    name: str
    created_at: datetime


class ProjectRoleBody(Body):
    """A user's role in one project."""

    role: Role


class ProjectMemberAnswer(Answer):
    """A user with a role of its own in a project."""

    name: str
    role: Role
    created_at: datetime
