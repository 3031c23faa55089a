"""Signing in by a provider, in the API."""

from pydantic import Field

from backend.schemas import Answer


class OpenIdAnswer(Answer):
    """Whether people may sign in by an OpenID provider here."""

    issuer: str | None = Field(description="The provider; None where there is none.")
