"""What an operator sets about an OpenID provider: ``TRUNKLINE_OPENID_...``."""

from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

RoleWord = Literal["admin", "researcher", "auditor"]
_ROLES: Final[tuple[RoleWord, ...]] = ("admin", "researcher", "auditor")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class OpenIdSettings(BaseModel):
    """A part of the control plane's settings.

    Attributes:
        openid_issuer: The provider's address, as it stands in its tokens; unset: nobody signs in so.
        openid_client_id: This server's name at the provider.
        openid_client_secret_file: Holds its secret; unset for a public client.
        openid_scopes: What is asked for, separated by spaces.
        openid_domains: Ends of e-mail addresses that are let in, separated by commas; empty: all.
        openid_role_claim: The claim that names somebody's groups.
        openid_roles: ``group=role`` separated by commas: who is in none of these groups is not let in, and
            each sign-in sets the role. Empty: roles are this server's own.
        openid_provision: Whether a user is made for who has none; else an admin makes it, with its address.
        openid_default_role: Of users made so, where no group says it.
        openid_organization: Whose members sign in so.
    """

    openid_issuer: str = Field(default="", max_length=255)
    openid_client_id: str = ""
    openid_client_secret_file: Path | None = None
    openid_scopes: str = "openid email profile"
    openid_domains: str = ""
    openid_role_claim: str = "groups"
    openid_roles: str = ""
    openid_provision: bool = False
    openid_default_role: RoleWord = "researcher"
    openid_organization: str = "default"

    @field_validator("openid_issuer")
    @classmethod
    def _is_provider(cls, value: str) -> str:
        parts = urlsplit(value)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if value and not (is_safe and parts.hostname and not parts.query and not parts.fragment):
            raise ValueError(f"{value!r} is not https://host[/path], or http:// on this machine")
        return value

    @field_validator("openid_roles")
    @classmethod
    def _are_roles(cls, value: str) -> str:
        for pair in filter(None, value.split(",")):
            group, _, role = pair.rpartition("=")
            if not group.strip() or role.strip() not in _ROLES:
                raise ValueError(f"{pair!r} is not group=role; roles are {', '.join(_ROLES)}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.openid_issuer and not self.openid_client_id:
            raise ValueError("TRUNKLINE_OPENID_ISSUER is set; set TRUNKLINE_OPENID_CLIENT_ID as well")
        return self

    @property
    def openid_domain_list(self) -> frozenset[str]:
        """Domains that are let in; none: all."""
        return frozenset(
            domain.strip().lower() for domain in self.openid_domains.split(",") if domain.strip()
        )

    @property
    def openid_role_map(self) -> dict[str, RoleWord]:
        """Roles by group."""
        found: dict[str, RoleWord] = {}
        for pair in filter(None, self.openid_roles.split(",")):
            group, _, role = pair.rpartition("=")
            found[group.strip()] = next(word for word in _ROLES if word == role.strip())
        return found
