"""Organisations and projects in the API."""

from datetime import datetime

from backend.schemas import Answer, Body, Name


class OrganizationAnswer(Answer):
    """An organisation."""

    name: str
    created_at: datetime


class CreateProjectBody(Body):
    """A project to be made."""

    name: Name


class ProjectAnswer(Answer):
    """A project: what jobs, models and artifacts belong to."""

    name: str
    created_at: datetime
